create or replace function duragraph.tasks_after_update(p_updates json, p_definition jsonb, p_tasks json)
returns json
language sql
stable
as $$
  select case
    when exists (select from json_array_elements(p_updates) u where u ->> 'as_node' is not null) then (
      select coalesce(json_agg(json_build_object('name', n.node, 'path', json_build_array('__pull__', n.node)) order by n.place), '[]')
      from (
        select f.node, min(array[u.n, f.n]) as place
        from json_array_elements(p_updates) with ordinality u (body, n),
          unnest(duragraph.static_next(p_definition, u.body ->> 'as_node')) with ordinality f (node, n)
        where u.body ->> 'as_node' is not null
        group by f.node
      ) n
    )
    when p_tasks is not null then p_tasks
    when exists (select from json_array_elements(p_updates) u where coalesce(json_typeof(u -> 'values'), 'null') <> 'null') then (
      select coalesce(json_agg(json_build_object('name', f.node, 'path', json_build_array('__pull__', f.node)) order by f.n), '[]')
      from unnest(duragraph.static_next(p_definition, '__start__')) with ordinality f (node, n)
    )
    else '[]'
  end
$$;
comment on function duragraph.tasks_after_update(json, jsonb, json) is
  'What runs next after updates: what follows their as_node; without one what was next before, or on a new thread the entry node.';
