create or replace function duragraph.drawn_graph(p_definition jsonb, p_depth integer)
returns jsonb
language plpgsql
stable
as $$
declare
  v_nodes text[] := array(
    select v.node ->> 'id' from jsonb_array_elements(coalesce(p_definition -> 'nodes', '[]')) with ordinality v (node, n)
    where v.node ->> 'id' not in ('__start__', '__end__') order by v.n
  );
  v_edges jsonb := (
    select coalesce(jsonb_agg(jsonb_strip_nulls(jsonb_build_object(
      'source', e.source, 'target', e.target, 'conditional', nullif(e.conditional, false), 'data', e.label
    )) order by e.n), '[]')
    from duragraph.graph_edges(p_definition) e
  );
  v_opened record;
begin
  for v_opened in
    select v.node ->> 'id' as id, duragraph.drawn_graph(v.node -> 'config' -> 'graph', p_depth - 1) as graph
    from jsonb_array_elements(coalesce(p_definition -> 'nodes', '[]')) v (node)
    where p_depth > 0 and jsonb_typeof(v.node -> 'config' -> 'graph') = 'object'
  loop
    v_nodes := array(
      select name.id
      from unnest(v_nodes) with ordinality outside (id, n), lateral (
        select outside.id, 0::bigint as m where outside.id <> v_opened.id
        union all
        select v_opened.id || ':' || i.id, i.m from jsonb_array_elements_text(v_opened.graph -> 'nodes') with ordinality i (id, m)
        where outside.id = v_opened.id
      ) name
      order by outside.n, name.m
    );
    -- Edges to the node lead to what is first inside, edges from it come from what is last.
    v_edges := (
      select coalesce(jsonb_agg(edge order by n, m), '[]')
      from (
        select o.edge || coalesce(head.edge, '{}') || coalesce(tail.edge, '{}') as edge, o.n, coalesce(head.m, 0) + coalesce(tail.m, 0) as m
        from jsonb_array_elements(v_edges) with ordinality o (edge, n)
        left join lateral (
          select jsonb_build_object('target', v_opened.id || ':' || (i.edge ->> 'target')) || (i.edge - '{source,target}'::text[]) as edge, i.m
          from jsonb_array_elements(v_opened.graph -> 'edges') with ordinality i (edge, m) where i.edge ->> 'source' = '__start__'
        ) head on o.edge ->> 'target' = v_opened.id
        left join lateral (
          select jsonb_build_object('source', v_opened.id || ':' || (i.edge ->> 'source')) || (i.edge - '{source,target}'::text[]) as edge, i.m
          from jsonb_array_elements(v_opened.graph -> 'edges') with ordinality i (edge, m) where i.edge ->> 'target' = '__end__'
        ) tail on o.edge ->> 'source' = v_opened.id
        union all
        select i.edge || jsonb_build_object('source', v_opened.id || ':' || (i.edge ->> 'source'), 'target', v_opened.id || ':' || (i.edge ->> 'target')),
          1000000, i.m
        from jsonb_array_elements(v_opened.graph -> 'edges') with ordinality i (edge, m)
        where i.edge ->> 'source' <> '__start__' and i.edge ->> 'target' <> '__end__'
      ) edges
    );
  end loop;
  return jsonb_build_object('nodes', to_jsonb(v_nodes), 'edges', v_edges);
end
$$;
comment on function duragraph.drawn_graph(jsonb, integer) is
  'The nodes and edges of a definition, {nodes: [id], edges: [{source, target, conditional?, data?}]}; subgraphs opened to that depth, their nodes as child:node.';
