create or replace function duragraph.heartbeat(p_beats json) returns json
language plpgsql
set enable_seqscan = off set jit = off as $$
declare
  v_now timestamptz := duragraph.current_time();
  v_ends duragraph.run_end[];
  v_out json;
begin
  update duragraph.worker_heartbeats h set beat_at = v_now, expires_at = v_now + make_interval(secs => w.lease_seconds),
      active_runs = coalesce(b.active_runs, 0), details = coalesce(b.details, h.details)
    from (select distinct on (x.worker_key) x.* from json_to_recordset(p_beats) as x(worker_key integer, active_runs integer, details jsonb)
        order by x.worker_key) b
    join duragraph.workers w on w.worker_key = b.worker_key
    where h.worker_key = b.worker_key;
  -- A lease that its worker does not hold: the answer to its claim was lost on the way. Give it out again.
  with x as materialized (
    select l.shard, l.run_id, w.worker_id from json_to_recordset(p_beats) as b(worker_key integer, held bigint[])
    join duragraph.workers w on w.worker_key = b.worker_key
    join duragraph.leases l on l.worker_key = b.worker_key
    where b.held is not null and not l.token = any(b.held) and l.claimed_at < v_now - interval '10 seconds'
    for update of l skip locked),
  gone as (
    delete from duragraph.leases l using x where l.shard = x.shard and l.run_id = x.run_id
    returning (l.shard, l.run_id, l.tenant_id, l.thread_id, l.temporary, l.graph_key, null, l.worker_key, l.attempt, l.last_seq, l.checkpoint_id,
      l.claimed_at, 'expired', null, null, format('worker %s does not know of it', x.worker_id), null)::duragraph.run_end as e)
  select array_agg(gone.e) into v_ends from gone;
  if v_ends is not null then
    perform duragraph.requeue_runs(v_ends);
    perform duragraph.notify_runs(array(select e.run_id from unnest(v_ends) e), true);
  end if;
  perform duragraph.release_expired_leases(100);
  select json_agg(json_build_object('worker_key', b.worker_key, 'known', w.worker_key is not null, 'status', w.status,
      'lost', array(select t from unnest(b.held) t where not exists (
        select 1 from duragraph.leases l where l.worker_key = b.worker_key and l.token = t))) order by b.n)
    into v_out
  from rows from (json_to_recordset(p_beats) as (worker_key integer, held bigint[])) with ordinality as b(worker_key, held, n)
  left join duragraph.workers w on w.worker_key = b.worker_key;
  return coalesce(v_out, '[]');
end $$;
comment on function duragraph.heartbeat(json) is
  'Beats of workers: [{worker_key, held: [tokens] or null, active_runs, details}]. Keeps their leases alive, takes back what they do not hold or what a silent worker held, and answers for each {worker_key, known, status, lost: [tokens that are no longer theirs]}.';
