create or replace function duragraph.end_runs(p_ends duragraph.run_end[]) returns boolean
language plpgsql
set enable_seqscan = off set enable_hashjoin = off set enable_mergejoin = off set jit = off as $$
declare
  v_now timestamptz := duragraph.current_time();
  v_ready boolean;
begin
  if cardinality(p_ends) = 0 then
    return false;
  end if;
  update duragraph.runs r set
      status = e.status, error = case when e.status in ('error', 'timeout') then coalesce(e.error, json_build_object('error', 'Error', 'message', coalesce(e.reason, 'no reason given'))) end,
      output = e.output, reason = e.reason, token = e.token, worker_key = e.worker_key, attempt = greatest(e.attempt, r.attempt),
      last_seq = e.last_seq, checkpoint_id = coalesce(e.checkpoint_id, r.checkpoint_id), started_at = coalesce(r.started_at, e.started_at),
      ended_at = v_now
    from unnest(p_ends) e where r.shard = any(array[e.shard]) and r.run_id = e.run_id and r.status = 'pending';
  if exists (select 1 from duragraph.webhooks) then
    perform duragraph.owe_webhooks(p_ends);
  end if;
  if not exists (select 1 from unnest(p_ends) e where not e.temporary) then
    return false;
  end if;
  -- The runs came first: who takes a run behind a slot finds these there only when they have ended.
  v_ready := duragraph.promote_threads(p_ends);
  update duragraph.threads t set
      checkpoint_id = coalesce(e.checkpoint_id, t.checkpoint_id), values_checkpoint_id = coalesce(e.checkpoint_id, t.checkpoint_id),
      status = case when e.status in ('error', 'timeout') then 'error' else coalesce((
        select case when cardinality(c.next) > 0 then 'interrupted' else 'idle' end from duragraph.checkpoints c
        where c.shard = t.shard and c.tenant_id = t.tenant_id and c.thread_id = t.thread_id and c.checkpoint_ns = ''
          and c.checkpoint_id = coalesce(e.checkpoint_id, t.checkpoint_id)), 'idle') end,
      error = case when e.status in ('error', 'timeout') then coalesce(e.error, json_build_object('error', 'Error', 'message', coalesce(e.reason, 'no reason given')))
        when e.status = 'interrupted' then e.error end,
      updated_at = v_now, state_updated_at = case when e.checkpoint_id is null then t.state_updated_at else v_now end
    from unnest(p_ends) e
    where not e.temporary and t.shard = any(array[e.shard]) and t.tenant_id = e.tenant_id and t.thread_id = e.thread_id;
  return v_ready;
end $$;
comment on function duragraph.end_runs(duragraph.run_end[]) is
  'Writes how runs ended: run, thread status and values, and the next run of each thread, together. The leases are already gone.';
