create or replace function duragraph.merged_json(p_object json, p_over json)
returns json
language sql
immutable
as $$
  select coalesce(json_object_agg(m.key, m.value), '{}')
  from (
    select o.key, o.value from json_each(p_object) o where p_over -> o.key is null
    union all
    select v.key, v.value from json_each(p_over) v
  ) m
$$;
comment on function duragraph.merged_json(json, json) is
  'The members of one JSON object and those of another over it, values as they were written.';
