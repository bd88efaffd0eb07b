create or replace function duragraph.release_expired_leases(p_limit integer default 100) returns json
language plpgsql
set enable_seqscan = off set enable_hashjoin = off set enable_mergejoin = off set jit = off as $$
declare
  v_now timestamptz := duragraph.current_time();
  v_ends duragraph.run_end[];
  v_out json;
begin
  with silent as materialized (
    select w.worker_key, w.worker_id from duragraph.workers w
    left join duragraph.worker_heartbeats h using (worker_key)
    where coalesce(h.expires_at, '-infinity') < v_now),
  x as materialized (
    select l.shard, l.run_id, s.worker_id from silent s, lateral (
      select l.shard, l.run_id from duragraph.leases l where l.worker_key = s.worker_key and l.expires_at < v_now
      limit p_limit for update skip locked) l
    limit p_limit),
  gone as (
    delete from duragraph.leases l using x where l.shard = any(array[x.shard]) and l.run_id = x.run_id
    returning (l.shard, l.run_id, l.tenant_id, l.thread_id, l.temporary, l.graph_key, null, l.worker_key, l.attempt, l.last_seq,
      l.checkpoint_id, l.claimed_at, 'expired', null, null, format('worker %s stopped answering', x.worker_id), null)::duragraph.run_end as e)
  select array_agg(gone.e) into v_ends from gone;
  if v_ends is null then
    return '[]';
  end if;
  perform duragraph.requeue_runs(v_ends);
  -- Rare enough to NOTIFY inside: whoever called may not be the process that holds the polls.
  perform duragraph.notify_runs(array(select e.run_id from unnest(v_ends) e), true);
  select json_agg(json_build_object('run_id', e.run_id, 'worker_key', e.worker_key,
      'outcome', case when duragraph.run_status(e.shard, e.run_id) = 'error' then 'failed' else 'requeued' end))
    into v_out from unnest(v_ends) e;
  return v_out;
end $$;
comment on function duragraph.release_expired_leases(integer) is
  'Takes runs back from workers that fell silent: to ready with the next attempt, from the last checkpoint, or to error when attempts are used up.';
