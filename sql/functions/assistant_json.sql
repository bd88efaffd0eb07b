create or replace function duragraph.assistant_json(p_assistant duragraph.assistants, p_select text[] default null)
returns json
language sql
stable
as $$
  with whole as (
    select json_build_object(
      'assistant_id', p_assistant.assistant_id,
      'graph_id', p_assistant.graph_id,
      'config', p_assistant.config,
      'context', p_assistant.context,
      'metadata', p_assistant.metadata,
      'name', p_assistant.name,
      'description', p_assistant.description,
      'version', p_assistant.version,
      'created_at', duragraph.iso(p_assistant.created_at),
      'updated_at', duragraph.iso(p_assistant.updated_at)
    ) as body
  )
  select case
    when p_select is null then body
    else (select coalesce(json_object_agg(f.key, f.value), '{}') from json_each(body) f where f.key = any (p_select))
  end
  from whole
$$;
comment on function duragraph.assistant_json(duragraph.assistants, text[]) is
  'An assistant as the API shows it; with p_select only those fields.';
