create or replace function duragraph.assistant_graph(p_tenant integer, p_assistant text, p_depth integer default 0)
returns json
language sql
stable
as $$
  select json_build_object(
    'nodes', (
      select json_agg(json_build_object('id', v.id, 'type', 'runnable', 'data', json_build_object('name', v.id)) order by v.n)
      from (
        select '__start__' as id, 0 as n
        union all
        select i.id, i.n from jsonb_array_elements_text(g.graph -> 'nodes') with ordinality i (id, n)
        union all
        select '__end__', 1000000
      ) v
    ),
    'edges', g.graph -> 'edges'
  )
  from (select duragraph.drawn_graph((duragraph.assistant_graph_row(p_tenant, p_assistant)).definition, p_depth) as graph) g
$$;
comment on function duragraph.assistant_graph(integer, text, integer) is
  'The drawing of an assistant''s graph: {nodes: [{id, type, data}], edges: [{source, target, conditional?, data?}]}; subgraphs are opened to p_depth.';
