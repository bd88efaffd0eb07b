create or replace function duragraph.item_index(p_op jsonb)
returns jsonb
language plpgsql
stable
as $$
declare
  v_given jsonb := nullif(p_op -> 'index', 'null');
begin
  if v_given <> 'false' and (
    jsonb_typeof(v_given) <> 'array' or jsonb_array_length(v_given) > 100
    or exists (select from jsonb_array_elements(v_given) p where jsonb_typeof(p) <> 'string' or octet_length(p #>> '{}') > 400)
  ) then
    raise exception using
      errcode = 'DG422',
      message = 'index must be false or a list of at most 100 paths.',
      hint = 'For example ["title", "chapters[*].text"]; a path takes at most 400 bytes. Leave it out for the embedder''s own fields.',
      detail = '{"code":"invalid_index","field":"index"}';
  end if;
  return v_given;
end
$$;
comment on function duragraph.item_index(jsonb) is 'What of an item is to be indexed, checked: null for the embedder''s own fields, false, or a list of paths.';
