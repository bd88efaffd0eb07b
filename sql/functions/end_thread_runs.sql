create or replace function duragraph.end_thread_runs(p_tenant integer, p_thread uuid, p_action text, p_reason text, p_runs uuid[] default null)
returns json
language plpgsql
set enable_seqscan = off set jit = off as $$
declare
  v_shard smallint := duragraph.shard_of(p_thread);
  v_slot duragraph.slots;
  v_ends duragraph.run_end[] := '{}';
  v_queued uuid[];
  v_out json;
begin
  -- Lock order: leases, then slots. A run that moves between the two (claimed, handed back) is caught in the next round.
  for v_round in 1 .. 10 loop
    with gone as (
      delete from duragraph.leases l using duragraph.slots s
        where s.shard = v_shard and s.tenant_id = p_tenant and s.thread_id = p_thread and l.shard = s.shard and l.run_id = s.active_run_id
          and (p_runs is null or l.run_id = any(p_runs))
      returning (l.shard, l.run_id, l.tenant_id, l.thread_id, l.temporary, l.graph_key, l.token, l.worker_key, l.attempt, l.last_seq,
        l.checkpoint_id, l.claimed_at, 'interrupted', null, null, p_reason, null)::duragraph.run_end as e)
    select v_ends || coalesce(array_agg(gone.e), '{}') into v_ends from gone;
    if p_runs is null then
      -- Nobody may enter between the end of these runs and the caller's own: on a free thread, hold a slot of our own.
      insert into duragraph.slots (shard, tenant_id, thread_id) values (v_shard, p_tenant, p_thread) on conflict do nothing;
      exit when found;
    end if;
    select s.* into v_slot from duragraph.slots s where s.shard = v_shard and s.tenant_id = p_tenant and s.thread_id = p_thread for update;
    continue when not found;
    exit when v_slot.active_run_id is null or cardinality(v_ends) > 0 or (p_runs is not null and not v_slot.active_run_id = any(p_runs));
    delete from duragraph.ready r using duragraph.runs x
      where x.shard = v_shard and x.run_id = v_slot.active_run_id and r.graph_key = x.graph_key and r.ord = x.ord and r.run_id = x.run_id;
    if not found then
      delete from duragraph.scheduled s where s.shard = v_shard and s.run_id = v_slot.active_run_id;
    end if;
    if found then
      v_ends := v_ends || array(select (x.shard, x.run_id, x.tenant_id, x.thread_id, false, x.graph_key, null, null, x.attempt, x.last_seq,
          x.checkpoint_id, null, 'interrupted', null, null, p_reason, null)::duragraph.run_end
        from duragraph.runs x where x.shard = v_shard and x.run_id = v_slot.active_run_id);
      exit;
    end if;
  end loop;
  with w as (
    delete from duragraph.waiting w where w.shard = v_shard and w.tenant_id = p_tenant and w.thread_id = p_thread
      and (p_runs is null or w.run_id = any(p_runs)) returning w.run_id),
  d as (
    delete from duragraph.scheduled s where s.shard = v_shard and s.tenant_id = p_tenant and s.thread_id = p_thread and not s.holds_slot
      and (p_runs is null or s.run_id = any(p_runs)) returning s.run_id),
  line as (
    update duragraph.slots s set waiting = s.waiting - (select count(*) from w), delayed = s.delayed - (select count(*) from d)
      where s.shard = v_shard and s.tenant_id = p_tenant and s.thread_id = p_thread)
  select array(select run_id from w union all select run_id from d) into v_queued;
  delete from duragraph.slots s where s.shard = v_shard and s.tenant_id = p_tenant and s.thread_id = p_thread
    and s.active_run_id is null and s.waiting = 0 and s.delayed = 0;
  update duragraph.runs r set status = 'interrupted', ended_at = duragraph.current_time(), reason = p_reason
    where r.shard = v_shard and r.run_id = any(v_queued) and r.status = 'pending';
  if exists (select 1 from duragraph.webhooks) then
    perform duragraph.owe_webhooks(array(
      select (v_shard, q, p_tenant, p_thread, false, null, null, null, null, null, null, null, 'interrupted',
        case p_action when 'rollback' then '{"error": "UserRollback"}' end, null, p_reason, null)::duragraph.run_end from unnest(v_queued) q));
  end if;
  perform duragraph.end_runs(array(
    select (e.shard, e.run_id, e.tenant_id, e.thread_id, e.temporary, e.graph_key, null, e.worker_key, e.attempt, e.last_seq,
      case when p_action <> 'rollback' then e.checkpoint_id end, e.started_at, e.status,
      json_build_object('error', case p_action when 'rollback' then 'UserRollback' else 'UserInterrupt' end, 'message', p_reason),
      null, p_reason, null)::duragraph.run_end from unnest(v_ends) e));
  select json_agg(json_build_object('run_id', x.run_id, 'thread_id', p_thread, 'worker_key', x.worker_key, 'token', x.token)) into v_out
    from (select e.run_id, e.worker_key, e.token from unnest(v_ends) e union all select q, null, null from unnest(v_queued) q) x;
  if p_action = 'rollback' and v_out is not null then
    perform duragraph.erase_runs(p_tenant, p_thread, array(select (o ->> 'run_id')::uuid from json_array_elements(v_out) o));
    if p_runs is not null and cardinality(v_ends) > 0 then
      update duragraph.threads t set error = json_build_object('error', 'UserRollback', 'message', p_reason)
        where t.shard = v_shard and t.tenant_id = p_tenant and t.thread_id = p_thread;
    end if;
  end if;
  return coalesce(v_out, '[]');
end $$;
comment on function duragraph.end_thread_runs(integer, uuid, text, text, uuid[]) is
  'Ends the running and queued runs of a thread at once (only p_runs when given, else all, and the thread is the caller''s until its transaction ends): interrupt keeps what they committed, rollback removes them with it. Answers whose leases went: their workers must stop.';
