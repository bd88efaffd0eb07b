create or replace function duragraph.create_assistant(p_tenant integer, p_request jsonb)
returns json
language plpgsql
as $$
declare
  v_now timestamptz := duragraph.current_time();
  v_id uuid := coalesce((p_request ->> 'assistant_id')::uuid, gen_random_uuid());
  v_graph duragraph.graphs := duragraph.find_graph(p_tenant, p_request ->> 'graph_id');
  v_settings record := duragraph.assistant_settings(p_request);
  v_assistant duragraph.assistants;
begin
  insert into duragraph.assistants as a
    (tenant_id, assistant_id, graph_id, name, description, config, context, metadata, created_at, updated_at)
  values (
    p_tenant, v_id, v_graph.graph_id, coalesce(p_request ->> 'name', 'Untitled'), p_request ->> 'description',
    v_settings.config, v_settings.context, coalesce(nullif(p_request -> 'metadata', 'null'), '{}'), v_now, v_now
  )
  on conflict do nothing
  returning * into v_assistant;
  if found then
    perform duragraph.keep_assistant_version(v_assistant);
  elsif p_request ->> 'if_exists' = 'do_nothing' then
    v_assistant := duragraph.find_assistant(p_tenant, v_id);
  else
    raise exception using
      errcode = 'DG409',
      message = 'Assistant with ID ' || v_id || ' already exists.',
      hint = 'Leave assistant_id out, or send if_exists: do_nothing to get the present one.',
      detail = '{"code":"assistant_exists","field":"assistant_id"}';
  end if;
  return duragraph.assistant_json(v_assistant);
end
$$;
comment on function duragraph.create_assistant(integer, jsonb) is
  'Makes an assistant from {graph_id, assistant_id?, name?, description?, config?, context?, metadata?, if_exists?}.';
