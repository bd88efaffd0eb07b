create or replace function duragraph.text_array(p_list jsonb)
returns text[]
language sql
immutable
as $$
  select case when jsonb_typeof(p_list) = 'array' then array(select jsonb_array_elements_text(p_list)) end
$$;
comment on function duragraph.text_array(jsonb) is 'A JSON array of texts as an array; null when it is none.';
