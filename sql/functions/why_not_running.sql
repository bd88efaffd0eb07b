create or replace function duragraph.why_not_running(p_run uuid)
returns text
language plpgsql
stable
set enable_seqscan = off set jit = off
as $$
declare
  v_now timestamptz := duragraph.current_time();
  v_run duragraph.runs;
  v_row record;
begin
  select * into v_run from duragraph.runs r where r.shard = duragraph.shard_of(p_run) and r.run_id = p_run;
  if not found then
    return 'There is no run ' || p_run || ': the id is wrong, or the run was deleted.';
  end if;
  if v_run.status <> 'pending' then
    return 'It has ended: ' || v_run.status || ' at ' || duragraph.iso(v_run.ended_at) || coalesce(', ' || v_run.reason, '')
      || coalesce(' (' || (v_run.error ->> 'error') || ': ' || (v_run.error ->> 'message') || ')', '') || '.';
  end if;

  select l.claimed_at, l.attempt, l.started, greatest(l.expires_at, b.expires_at) as expires_at, b.beat_at, w.worker_id into v_row
  from duragraph.leases l
  left join duragraph.workers w on w.worker_key = l.worker_key
  left join duragraph.worker_heartbeats b on b.worker_key = l.worker_key
  where l.shard = v_run.shard and l.run_id = p_run;
  if found then
    return 'It is running: worker ' || coalesce(v_row.worker_id, '(unknown)') || ' has had it since ' || duragraph.iso(v_row.claimed_at)
      || ', attempt ' || v_row.attempt || ' of ' || v_run.max_attempts || case
        when v_row.expires_at < v_now then '. The worker is silent since ' || coalesce(duragraph.iso(v_row.beat_at), 'it registered')
          || ': the run goes back to the queue at the next heartbeat of any worker.'
        when not v_row.started then '; the worker has not reported the start yet.'
        else '.'
      end;
  end if;

  select s.due_at, s.attempt into v_row from duragraph.scheduled s where s.shard = v_run.shard and s.run_id = p_run;
  if found then
    return case
      when v_row.attempt > 0 then 'It backs off until ' || duragraph.iso(v_row.due_at) || ' after attempt ' || v_row.attempt || ' of '
        || v_run.max_attempts || coalesce(' (' || v_run.reason || ')', '')
      else 'It is delayed until ' || duragraph.iso(v_row.due_at) || ', as its creator asked'
    end || case
      when v_row.due_at <= v_now then '; that time has come, and the next claim or heartbeat of a worker starts it.' else '.'
    end;
  end if;

  select s.active_run_id, (
    select count(*) from duragraph.waiting n
    where n.shard = w.shard and n.tenant_id = w.tenant_id and n.thread_id = w.thread_id and n.ord <= w.ord
  ) as place into v_row
  from duragraph.waiting w
  left join duragraph.slots s on s.shard = w.shard and s.tenant_id = w.tenant_id and s.thread_id = w.thread_id
  where w.shard = v_run.shard and w.tenant_id = v_run.tenant_id and w.thread_id = v_run.thread_id and w.run_id = p_run;
  if found then
    return 'It waits behind run ' || v_row.active_run_id || ' in its thread (number ' || v_row.place
      || ' in line): a thread runs one at a time. That run: ' || duragraph.why_not_running(v_row.active_run_id);
  end if;

  if exists (select from duragraph.ready r where r.graph_key = v_run.graph_key and r.ord = v_run.ord and r.run_id = p_run) then
    return 'It is ready: ' || duragraph.why_not_claimed(v_run);
  end if;
  return 'It is pending but in no queue, which should never be; select duragraph.cancel_run(''' || p_run
    || ''') and duragraph.retry_run(''' || p_run || ''') start it anew.';
end
$$;
comment on function duragraph.why_not_running(uuid) is
  'Why a run does not run, in a sentence: ended, running, delayed, backing off, behind another run of its thread, or without a worker that takes it.';
