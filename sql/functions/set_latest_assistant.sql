create or replace function duragraph.set_latest_assistant(p_tenant integer, p_assistant uuid, p_version integer)
returns json
language plpgsql
as $$
declare
  v_assistant duragraph.assistants;
begin
  perform from duragraph.assistants a where a.tenant_id = p_tenant and a.assistant_id = p_assistant for update;
  perform duragraph.keep_assistant_version(duragraph.find_assistant(p_tenant, p_assistant));
  update duragraph.assistants a
  set
    graph_id = v.graph_id, name = v.name, description = v.description, config = v.config, context = v.context,
    metadata = v.metadata, version = v.version, updated_at = duragraph.current_time()
  from duragraph.assistant_versions v
  where a.tenant_id = p_tenant and a.assistant_id = p_assistant
    and v.tenant_id = p_tenant and v.assistant_id = p_assistant and v.version = p_version
  returning a.* into v_assistant;
  if not found then
    raise exception using
      errcode = 'DG404',
      message = 'Assistant ' || p_assistant || ' has no version ' || coalesce(p_version::text, 'null') || '.',
      hint = 'List its versions with POST /assistants/{assistant_id}/versions.',
      detail = '{"code":"assistant_version_not_found","field":"version"}';
  end if;
  return duragraph.assistant_json(v_assistant);
end
$$;
comment on function duragraph.set_latest_assistant(integer, uuid, integer) is
  'Points the assistant at one of its versions; the next update still counts on from the highest.';
