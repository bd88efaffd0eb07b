create or replace function duragraph.assistant_subgraphs(
  p_tenant integer, p_assistant uuid, p_namespace text default null, p_recurse boolean default false
)
returns json
language sql
stable
as $$
  select coalesce(json_object_agg(s.key, s.value), '{}')
  from duragraph.find_graph(p_tenant, (duragraph.find_assistant(p_tenant, p_assistant)).graph_id) g
  cross join jsonb_each(coalesce(g.schemas -> 'subgraphs', '{}')) s
  where (p_namespace is null or s.key = p_namespace or (p_recurse and starts_with(s.key, p_namespace || '|')))
    and (p_recurse or p_namespace is not null or strpos(s.key, '|') = 0)
$$;
comment on function duragraph.assistant_subgraphs(integer, uuid, text, boolean) is
  'Schemas of the subgraphs of an assistant''s graph by namespace ("child", deeper "child|inner"); {} when there are none.';
