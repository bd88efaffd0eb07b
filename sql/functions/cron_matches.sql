create or replace function duragraph.cron_matches(p_cron duragraph.crons, p_request jsonb)
returns boolean
language sql
immutable
as $$
  select p_cron.metadata @> coalesce(nullif(p_request -> 'metadata', 'null'), '{}')
    and (p_request ->> 'assistant_id' is null or p_cron.assistant_id = (p_request ->> 'assistant_id')::uuid)
    and (p_request ->> 'thread_id' is null or p_cron.thread_id is not distinct from (p_request ->> 'thread_id')::uuid)
    and (p_request ->> 'enabled' is null or p_cron.enabled = (p_request ->> 'enabled')::boolean)
$$;
comment on function duragraph.cron_matches(duragraph.crons, jsonb) is
  'Whether a search finds the cron: metadata by containment, assistant_id, thread_id, enabled.';
