create or replace function duragraph.keep_assistant_version(p_assistant duragraph.assistants)
returns void
language sql
as $$
  insert into duragraph.assistant_versions
    (tenant_id, assistant_id, version, graph_id, name, description, config, context, metadata, created_at)
  select
    p_assistant.tenant_id, p_assistant.assistant_id, p_assistant.version, p_assistant.graph_id, p_assistant.name,
    p_assistant.description, p_assistant.config, p_assistant.context, p_assistant.metadata, p_assistant.updated_at
  on conflict do nothing
$$;
comment on function duragraph.keep_assistant_version(duragraph.assistants) is
  'Puts the assistant as it is now beside its other versions. Changes nothing when that version is kept already.';
