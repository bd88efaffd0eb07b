create or replace function duragraph.count_assistants(p_tenant integer, p_request jsonb default '{}')
returns bigint
language sql
stable
as $$
  select count(*) from duragraph.assistants a where a.tenant_id = p_tenant and duragraph.assistant_matches(a, p_request)
$$;
comment on function duragraph.count_assistants(integer, jsonb) is 'How many assistants match {metadata, graph_id, name}.';
