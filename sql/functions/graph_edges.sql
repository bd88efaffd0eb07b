create or replace function duragraph.graph_edges(p_definition jsonb)
returns table (source text, target text, conditional boolean, label text, n bigint)
language sql
immutable
as $$
  with named as (
    select e.edge, e.n from jsonb_array_elements(coalesce(p_definition -> 'edges', '[]')) with ordinality e (edge, n)
  ),
  stated as (
    -- A target is the name of a node, or {result of the router: name of a node}.
    select
      x.edge ->> 'source' as source,
      t.target,
      jsonb_typeof(x.edge -> 'target') = 'object' or coalesce((x.edge ->> 'conditional')::boolean, false) as conditional,
      coalesce(t.label, x.edge ->> 'data') as label,
      x.n
    from named x
    cross join lateral (
      select x.edge ->> 'target' as target, null::text as label where jsonb_typeof(x.edge -> 'target') = 'string'
      union all
      select o.value, o.key
      from jsonb_each_text(case when jsonb_typeof(x.edge -> 'target') = 'object' then x.edge -> 'target' end) o
    ) t
  ),
  entry as (
    select '__start__', p_definition ->> 'entry_point', false, null::text, 0::bigint
    where p_definition ->> 'entry_point' is not null and not exists (select from stated s where s.source = '__start__')
  ),
  ends as (
    select v.node ->> 'id', '__end__', false, null::text, 1000000::bigint
    from jsonb_array_elements(coalesce(p_definition -> 'nodes', '[]')) v (node)
    where v.node ->> 'id' not in ('__start__', '__end__')
      and not exists (select from stated s where s.source = v.node ->> 'id')
  )
  select * from entry
  union all
  select * from stated
  union all
  select * from ends
$$;
comment on function duragraph.graph_edges(jsonb) is
  'The edges of a registered definition, one row a pair of nodes, with those from __start__ and to __end__ that it leaves unsaid.';
