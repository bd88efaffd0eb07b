create or replace function duragraph.list_tools(p_tenant integer)
returns json
language sql
stable
set jit = off
as $$
  with named as (
    select a.*, coalesce(nullif(left(regexp_replace(a.name, '[^a-zA-Z0-9_-]+', '_', 'g'), 64), ''), 'assistant') as tool,
      coalesce(a.metadata ->> 'created_by' = 'system', false) as is_graph
    from duragraph.assistants a
    where a.tenant_id = p_tenant
  ),
  numbered as (
    select n.*, row_number() over (partition by n.tool order by n.is_graph desc, n.created_at, n.assistant_id) as nth from named n
  )
  select coalesce(json_agg(
    json_build_object(
      'assistant_id', n.assistant_id,
      'name', case when n.nth = 1 then n.tool else left(n.tool, 51) || '_' || right(n.assistant_id::text, 12) end,
      'title', n.name,
      'description', coalesce(n.description, case when n.is_graph then format('Runs the graph %s.', n.graph_id)
        else format('Runs the assistant %s of the graph %s.', n.name, n.graph_id) end),
      'input_schema', coalesce(g.schemas::jsonb -> 'input_schema', '{}') || '{"type": "object"}'
    )
    order by n.is_graph desc, n.created_at, n.assistant_id
  ), '[]')
  from numbered n
  join duragraph.graphs g on g.tenant_id = n.tenant_id and g.graph_id = n.graph_id
$$;
comment on function duragraph.list_tools(integer) is
  'Each assistant as a tool: {assistant_id, name, title, description, input_schema}, those of the graphs first. Names are of A-Za-z0-9_-, at most 64, and unique: all but the first of a name end in their id.';
