create or replace function duragraph.update_assistant(p_tenant integer, p_assistant uuid, p_request jsonb)
returns json
language plpgsql
as $$
declare
  v_settings record := duragraph.assistant_settings(p_request);
  v_assistant duragraph.assistants;
begin
  perform from duragraph.assistants a where a.tenant_id = p_tenant and a.assistant_id = p_assistant for update;
  v_assistant := duragraph.find_assistant(p_tenant, p_assistant);
  -- Assistants that a worker's registration made may have no kept version yet.
  perform duragraph.keep_assistant_version(v_assistant);
  if p_request ->> 'graph_id' is not null then
    v_assistant.graph_id := (duragraph.find_graph(p_tenant, p_request ->> 'graph_id')).graph_id;
  end if;
  if p_request ? 'config' or p_request ? 'context' then
    v_assistant.config := v_settings.config;
    v_assistant.context := v_settings.context;
  end if;
  update duragraph.assistants a
  set
    graph_id = v_assistant.graph_id,
    config = v_assistant.config,
    context = v_assistant.context,
    metadata = a.metadata || coalesce(nullif(p_request -> 'metadata', 'null'), '{}'),
    name = coalesce(p_request ->> 'name', a.name),
    description = case when p_request ? 'description' then p_request ->> 'description' else a.description end,
    version = 1 + (
      select max(v.version) from duragraph.assistant_versions v
      where v.tenant_id = p_tenant and v.assistant_id = p_assistant
    ),
    updated_at = duragraph.current_time()
  where a.tenant_id = p_tenant and a.assistant_id = p_assistant
  returning * into v_assistant;
  perform duragraph.keep_assistant_version(v_assistant);
  return duragraph.assistant_json(v_assistant);
end
$$;
comment on function duragraph.update_assistant(integer, uuid, jsonb) is
  'Makes a new version: metadata is merged, config and context are replaced, what is not sent stays.';
