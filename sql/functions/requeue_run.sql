create or replace function duragraph.requeue_run(p_run uuid) returns text
language plpgsql as $$
declare
  v_ends duragraph.run_end[];
  v_shard smallint := duragraph.shard_of(p_run);
begin
  with gone as (
    delete from duragraph.leases l using duragraph.workers w where l.shard = v_shard and l.run_id = p_run and w.worker_key = l.worker_key
    returning (l.shard, l.run_id, l.tenant_id, l.thread_id, l.temporary, l.graph_key, null, l.worker_key, l.attempt, l.last_seq, l.checkpoint_id,
      l.claimed_at, 'release', null, null, format('taken from worker %s by an operator', w.worker_id), null)::duragraph.run_end as e)
  select array_agg(gone.e) into v_ends from gone;
  if v_ends is not null then
    perform duragraph.requeue_runs(v_ends);
    perform duragraph.notify_runs(array[p_run], true);
    return format('Run %s is back in the queue; what its worker still sends is refused.', p_run);
  end if;
  -- The line before the place in it, as promote_due() takes them.
  perform 1 from duragraph.slots s join duragraph.scheduled d on d.shard = s.shard and d.tenant_id = s.tenant_id and d.thread_id = s.thread_id
    where d.shard = v_shard and d.run_id = p_run for update of s;
  update duragraph.scheduled s set due_at = duragraph.current_time() where s.shard = v_shard and s.run_id = p_run;
  if found then
    perform duragraph.promote_due();
    perform duragraph.notify_runs(array[p_run], true);
    return format('Run %s need not wait for its time any more.', p_run);
  end if;
  return duragraph.why_not_running(p_run);
end $$;
comment on function duragraph.requeue_run(uuid) is 'Take a run from its worker (its next attempt starts from the last checkpoint), or start a delayed one now. Says what was done.';
