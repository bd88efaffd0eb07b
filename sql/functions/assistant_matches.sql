create or replace function duragraph.assistant_matches(p_assistant duragraph.assistants, p_request jsonb)
returns boolean
language sql
immutable
as $$
  select p_assistant.metadata @> coalesce(nullif(p_request -> 'metadata', 'null'), '{}')
    and p_assistant.graph_id = coalesce(p_request ->> 'graph_id', p_assistant.graph_id)
    and strpos(lower(p_assistant.name), lower(coalesce(p_request ->> 'name', ''))) > 0
$$;
comment on function duragraph.assistant_matches(duragraph.assistants, jsonb) is
  'Whether a search finds the assistant: metadata by containment, graph_id, name as a part in any case.';
