create or replace function duragraph.requeue_runs(p_ends duragraph.run_end[]) returns boolean
language plpgsql
set enable_seqscan = off set enable_hashjoin = off set enable_mergejoin = off set jit = off as $$
declare
  v_now timestamptz := duragraph.current_time();
  v_dead duragraph.run_end[];
begin
  with b as materialized (
    select e.*, r.max_attempts, (r.ord >> 47) << 47 | nextval('duragraph.queue_order') as new_ord,
      e.attempt - (e.status = 'release')::integer as spent
    from unnest(p_ends) e, duragraph.runs r where r.shard = any(array[e.shard]) and r.run_id = e.run_id and r.status = 'pending'),
  live as materialized (
    select b.*, case when b.status = 'retry' then
      v_now + make_interval(secs => coalesce(b.retry_after, least(300, power(2, b.spent - 1)) * (0.5 + random() / 2))) end as due_at
    from b where b.spent < b.max_attempts),
  kept as (
    update duragraph.runs r set ord = live.new_ord, attempt = live.spent, last_seq = live.last_seq, token = live.token,
        checkpoint_id = coalesce(live.checkpoint_id, r.checkpoint_id), worker_key = live.worker_key,
        started_at = coalesce(r.started_at, live.started_at),
        reason = case live.status when 'retry' then format('attempt %s of %s failed%s; next at %s', live.spent, live.max_attempts,
            coalesce(': ' || (live.error ->> 'message'), ''), duragraph.iso(live.due_at))
          else coalesce(live.reason, 'handed back by its worker') end
      from live where r.shard = any(array[live.shard]) and r.run_id = live.run_id),
  later as (
    insert into duragraph.scheduled (shard, run_id, tenant_id, thread_id, graph_key, ord, attempt, last_seq, holds_slot, due_at)
      select live.shard, live.run_id, live.tenant_id, live.thread_id, live.graph_key, live.new_ord, live.spent, live.last_seq, true, live.due_at
      from live where live.due_at is not null),
  now_ready as (
    insert into duragraph.ready (graph_key, ord, shard, run_id, tenant_id, attempt, last_seq)
      select live.graph_key, live.new_ord, live.shard, live.run_id, live.tenant_id, live.spent, live.last_seq
      from live where live.due_at is null)
  select array_agg((b.shard, b.run_id, b.tenant_id, b.thread_id, b.temporary, b.graph_key, b.token, b.worker_key, b.attempt, b.last_seq,
      b.checkpoint_id, b.started_at, 'error',
      coalesce(b.error, json_build_object('error', 'AttemptsExhausted', 'message',
        format('%s; all %s attempts are used', coalesce(b.reason, 'the run failed'), b.max_attempts))),
      b.output, format('%s; all %s attempts are used', coalesce(b.reason, b.error ->> 'message', 'the run failed'), b.max_attempts), null
    )::duragraph.run_end) into v_dead
  from b where b.spent >= b.max_attempts;
  if v_dead is not null then
    perform duragraph.end_with_error(v_dead);
  end if;
  return true;
end $$;
comment on function duragraph.requeue_runs(duragraph.run_end[]) is
  'Runs without a lease go back: retry after a backoff (2^n s, at most 5 min, jittered), release at once and without spending an attempt; whose attempts are used ends as error.';
