create or replace function duragraph.find_graph(p_tenant integer, p_graph text)
returns duragraph.graphs
language plpgsql
stable
as $$
declare
  v_graph duragraph.graphs;
begin
  select * into v_graph from duragraph.graphs g where g.tenant_id = p_tenant and g.graph_id = p_graph and p_graph <> '__embed__';
  if not found then
    raise exception using
      errcode = 'DG404',
      message = 'Graph ''' || coalesce(p_graph, '') || ''' not found.',
      hint = 'A graph is known from the first registration of a worker that serves it.',
      detail = '{"code":"graph_not_found","field":"graph_id"}';
  end if;
  return v_graph;
end
$$;
comment on function duragraph.find_graph(integer, text) is 'What workers registered under that graph id, or 404.';
