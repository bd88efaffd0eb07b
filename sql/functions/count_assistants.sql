create or replace function duragraph.count_assistants(p_tenant integer, p_request jsonb default '{}')
returns bigint
language plpgsql
stable
as $$
begin
  if p_request ->> 'graph_id' is not null then
    perform duragraph.find_graph(p_tenant, p_request ->> 'graph_id');
  end if;
  return (select count(*) from duragraph.assistants a where a.tenant_id = p_tenant and duragraph.assistant_matches(a, p_request));
end
$$;
comment on function duragraph.count_assistants(integer, jsonb) is 'How many assistants match {metadata, graph_id, name}.';
