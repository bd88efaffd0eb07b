create or replace function duragraph.get_graph(p_tenant integer, p_graph text)
returns json
language sql
stable
as $$
  select json_build_object(
    'graph_id', g.graph_id,
    'name', coalesce(g.definition ->> 'name', g.graph_id),
    'description', coalesce(g.definition ->> 'description', ''),
    'nodes', coalesce(g.definition -> 'nodes', '[]'),
    'edges', coalesce(g.definition -> 'edges', '[]'),
    'entry_point', g.definition -> 'entry_point',
    'channels', coalesce(g.definition -> 'channels', '{}'),
    'build_id', g.build_id,
    'created_at', duragraph.iso(g.created_at),
    'updated_at', duragraph.iso(g.updated_at)
  )
  from duragraph.find_graph(p_tenant, p_graph) g
$$;
comment on function duragraph.get_graph(integer, text) is 'A graph as its workers registered it, or 404.';
