create or replace function duragraph.new_tasks(p_checkpoint uuid, p_tasks json)
returns json
language sql
immutable
as $$
  select coalesce(json_agg(
    (t.task::jsonb || jsonb_build_object('id', md5(p_checkpoint::text || (t.task -> 'path')::jsonb::text)::uuid))::json order by t.n
  ), '[]')
  from json_array_elements(p_tasks) with ordinality t (task, n)
$$;
comment on function duragraph.new_tasks(uuid, json) is
  'Tasks [{name, path, input?}] with the ids they have at that checkpoint: made of it and the path, the same each time.';
