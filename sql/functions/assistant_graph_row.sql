create or replace function duragraph.assistant_graph_row(p_tenant integer, p_assistant text)
returns duragraph.graphs
language plpgsql
stable
as $$
begin
  if p_assistant ~* '^[0-9a-f]{8}-?([0-9a-f]{4}-?){3}[0-9a-f]{12}$' then
    return duragraph.find_graph(p_tenant, (duragraph.find_assistant(p_tenant, p_assistant::uuid)).graph_id);
  end if;
  if not exists (select from duragraph.graphs g where g.tenant_id = p_tenant and g.graph_id = p_assistant and p_assistant <> '__embed__') then
    perform duragraph.refuse_assistant(p_tenant, p_assistant);
  end if;
  return duragraph.find_graph(p_tenant, p_assistant);
end
$$;
comment on function duragraph.assistant_graph_row(integer, text) is 'The graph of an assistant, named by the assistant''s id or by the graph''s own.';
