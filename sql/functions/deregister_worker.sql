create or replace function duragraph.deregister_worker(p_tenant integer, p_worker_id text) returns json
language plpgsql as $$
declare
  v_key integer;
  v_ends duragraph.run_end[];
begin
  update duragraph.workers w set status = 'stopped' where w.tenant_id = p_tenant and w.worker_id = p_worker_id returning w.worker_key into v_key;
  if not found then
    return json_build_object('worker_id', p_worker_id, 'deregistered', false);
  end if;
  update duragraph.worker_heartbeats h set expires_at = least(h.expires_at, duragraph.current_time()) where h.worker_key = v_key;
  with gone as (
    delete from duragraph.leases l where l.worker_key = v_key
    returning (l.shard, l.run_id, l.tenant_id, l.thread_id, l.temporary, l.graph_key, null, l.worker_key, l.attempt, l.last_seq, l.checkpoint_id,
      l.claimed_at, 'release', null, null, format('worker %s left', p_worker_id), null)::duragraph.run_end as e)
  select array_agg(gone.e) into v_ends from gone;
  if v_ends is not null then
    perform duragraph.requeue_runs(v_ends);
  end if;
  return json_build_object('worker_id', p_worker_id, 'deregistered', true, 'handed_back', coalesce(cardinality(v_ends), 0));
end $$;
comment on function duragraph.deregister_worker(integer, text) is 'A worker leaves: its runs go back to the queue at once, without spending an attempt.';
