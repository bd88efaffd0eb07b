create or replace function duragraph.complete_runs(p_writes json) returns json
language plpgsql
set enable_seqscan = off set enable_hashjoin = off set enable_mergejoin = off set jit = off as $$
declare
  v_ends duragraph.run_end[];
  v_done bigint[];
begin
  with w as materialized (
    select duragraph.shard_of(x.run_id) as shard, x.run_id, x.token, x.checkpoint_id, (x."end").*
    from json_to_recordset(p_writes) as x(run_id uuid, token bigint, checkpoint_id uuid, "end" duragraph.run_result)
    order by 1, x.run_id),
  l as (
    delete from duragraph.leases l using w where l.shard = any(array[w.shard]) and l.run_id = w.run_id and l.token = w.token
    returning (l.shard, l.run_id, l.tenant_id, l.thread_id, l.temporary, l.graph_key, l.token, l.worker_key, l.attempt, l.last_seq,
      coalesce(w.checkpoint_id, l.checkpoint_id), l.claimed_at, w.status, w.error, w.output, null, w.retry_after)::duragraph.run_end as e)
  select coalesce(array_agg(l.e), '{}'), coalesce(array_agg((l.e).token), '{}') into v_ends, v_done from l;
  return duragraph.write_results(p_writes, v_done, duragraph.settle_runs(v_ends));
end $$;
comment on function duragraph.complete_runs(json) is
  'Ends many runs in one commit: [{run_id, token, end: {status, error?, output?, retry_after?}}]. A stale token changes nothing.';
