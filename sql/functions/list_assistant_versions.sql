create or replace function duragraph.list_assistant_versions(
  p_tenant integer, p_assistant uuid, p_request jsonb default '{}'
)
returns json
language plpgsql
stable
as $$
declare
  v_assistant duragraph.assistants := duragraph.find_assistant(p_tenant, p_assistant);
begin
  return coalesce((
    select json_agg(
      json_build_object(
        'assistant_id', p.assistant_id, 'graph_id', p.graph_id, 'config', p.config, 'context', p.context,
        'metadata', p.metadata, 'name', p.name, 'description', p.description, 'version', p.version,
        'created_at', duragraph.iso(p.created_at)
      )
      order by p.version desc
    )
    from (
      select v.assistant_id, v.graph_id, v.config, v.context, v.metadata, v.name, v.description, v.version, v.created_at
      from duragraph.assistant_versions v
      where v.tenant_id = p_tenant and v.assistant_id = p_assistant
        and v.metadata @> coalesce(nullif(p_request -> 'metadata', 'null'), '{}')
      union
      -- The version of an assistant that a registration made and nobody changed.
      select
        v_assistant.assistant_id, v_assistant.graph_id, v_assistant.config, v_assistant.context, v_assistant.metadata,
        v_assistant.name, v_assistant.description, v_assistant.version, v_assistant.created_at
      where v_assistant.metadata @> coalesce(nullif(p_request -> 'metadata', 'null'), '{}') and not exists (
        select from duragraph.assistant_versions k where k.tenant_id = p_tenant and k.assistant_id = p_assistant
      )
      order by version desc
      limit coalesce((p_request ->> 'limit')::integer, 10)
      offset coalesce((p_request ->> 'offset')::integer, 0)
    ) p
  ), '[]');
end
$$;
comment on function duragraph.list_assistant_versions(integer, uuid, jsonb) is
  'Versions of an assistant, newest first; {limit, offset, metadata}. 404 when there is no such assistant.';
