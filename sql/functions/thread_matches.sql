create or replace function duragraph.thread_matches(p_thread duragraph.threads, p_request jsonb)
returns boolean
language sql
stable
as $$
  select p_thread.metadata @> coalesce(nullif(p_request -> 'metadata', 'null'), '{}')
    and (p_request ->> 'status' is null or duragraph.thread_status(p_thread) = p_request ->> 'status')
    and (
      coalesce(p_request -> 'values', 'null') in ('null', '{}')
      or (
        p_thread.values_checkpoint_id is not null
        and duragraph.checkpoint_values(
          p_thread.shard, p_thread.tenant_id, p_thread.thread_id, '', p_thread.values_checkpoint_id
        )::jsonb @> (p_request -> 'values')
      )
    )
$$;
comment on function duragraph.thread_matches(duragraph.threads, jsonb) is
  'Whether a search finds the thread: metadata and values by containment, status as shown.';
