create or replace function duragraph.assistant_graph(p_tenant integer, p_assistant text)
returns json
language sql
stable
as $$
  with graph as (
    select (duragraph.assistant_graph_row(p_tenant, p_assistant)).definition as definition
  ),
  edges as (
    select e.source, e.target, e.conditional, e.label, e.n from graph g, duragraph.graph_edges(g.definition) e
  ),
  nodes as (
    select '__start__' as id, 0 as n
    union all
    select v.node ->> 'id', v.n::integer
    from graph g, jsonb_array_elements(coalesce(g.definition -> 'nodes', '[]')) with ordinality v (node, n)
    where v.node ->> 'id' not in ('__start__', '__end__')
    union all
    select '__end__', 1000000
  )
  select json_build_object(
    'nodes', (
      select json_agg(json_build_object('id', id, 'type', 'runnable', 'data', json_build_object('name', id)) order by n)
      from nodes
    ),
    'edges', (
      select coalesce(json_agg(
        jsonb_strip_nulls(jsonb_build_object(
          'source', source, 'target', target, 'conditional', nullif(conditional, false), 'data', label
        ))
        order by n
      ), '[]')
      from edges
    )
  )
$$;
comment on function duragraph.assistant_graph(integer, text) is
  'The drawing of an assistant''s graph: {nodes: [{id, type, data}], edges: [{source, target, conditional?, data?}]}.';
