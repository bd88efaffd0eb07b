create or replace function duragraph.end_with_error(p_ends duragraph.run_end[]) returns boolean
language plpgsql as $$
begin
  insert into duragraph.events (shard, run_id, seq, tenant_id, at, event, data)
    select e.shard, e.run_id, e.last_seq + 1, e.tenant_id, duragraph.current_time(), 'error', e.error from unnest(p_ends) e;
  return duragraph.end_runs(array(
    select (e.shard, e.run_id, e.tenant_id, e.thread_id, e.temporary, e.graph_key, e.token, e.worker_key, e.attempt, e.last_seq + 1,
      e.checkpoint_id, e.started_at, e.status, e.error, e.output, e.reason, e.retry_after)::duragraph.run_end from unnest(p_ends) e));
end $$;
comment on function duragraph.end_with_error(duragraph.run_end[]) is
  'Ends runs that no worker can end any more, with an error event as the last of their log.';
