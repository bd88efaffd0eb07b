create or replace function duragraph.enter_threads(p_tenant integer, p_new duragraph.new_run[]) returns uuid[]
language plpgsql
set enable_seqscan = off set enable_hashjoin = off set enable_mergejoin = off set jit = off as $$
declare
  v_active uuid[] := '{}';
  v_run record;
begin
  for v_run in
    select u.* from unnest(p_new) u where not u.temporary and u.strategy in ('interrupt', 'rollback') order by u.shard, u.thread_id
  loop
    perform duragraph.notify_ended(
      duragraph.end_thread_runs(p_tenant, v_run.thread_id, v_run.strategy, format('superseded by run %s', v_run.run_id)));
  end loop;
  with line as (
    select u.shard, u.thread_id, (array_agg(u.run_id order by u.ord) filter (where u.due_at is null))[1] as head,
      count(*) filter (where u.due_at is null)::integer as n, count(u.due_at)::integer as delayed
    from unnest(p_new) u where not u.temporary group by u.shard, u.thread_id order by u.shard, u.thread_id),
  s as (
    insert into duragraph.slots as s (shard, tenant_id, thread_id, active_run_id, waiting, delayed)
      select line.shard, p_tenant, line.thread_id, line.head, greatest(line.n - 1, 0), line.delayed from line
    on conflict (shard, tenant_id, thread_id) do update set
      active_run_id = coalesce(s.active_run_id, excluded.active_run_id),
      waiting = s.waiting + excluded.waiting + (s.active_run_id is not null and excluded.active_run_id is not null)::integer,
      delayed = s.delayed + excluded.delayed
    returning s.active_run_id)
  -- A thread with delayed runs only has no active one: a null in the answer would make every "= any" of the caller unknown.
  select coalesce(array_agg(s.active_run_id) filter (where s.active_run_id is not null), '{}') into v_active from s;
  -- Behind the slot's lock a thread may turn out to have been deleted.
  for v_run in
    select u.thread_id from unnest(p_new) u left join lateral (
      select t.thread_id from duragraph.threads t where t.shard = u.shard and t.tenant_id = p_tenant and t.thread_id = u.thread_id offset 0) t on true
    where not u.temporary and t.thread_id is null
  loop
    raise exception using errcode = 'DG404', message = 'Thread or assistant not found.',
      hint = format('Thread %s has just been deleted.', v_run.thread_id), detail = '{"code": "thread_not_found", "field": "thread_id"}';
  end loop;
  for v_run in
    select u.run_id, s.* from unnest(p_new) u, lateral (
      select s.* from duragraph.slots s where s.shard = u.shard and s.tenant_id = p_tenant and s.thread_id = u.thread_id offset 0) s
    where u.strategy = 'reject' and not u.temporary
  loop
    if v_run.waiting + v_run.delayed + (v_run.active_run_id is not null)::integer > 1 then
      raise exception using errcode = 'DG409',
        message = 'Thread is already running a task. Wait for it to finish or choose a different multitask strategy.',
        hint = format(case when v_run.active_run_id is null or v_run.active_run_id = v_run.run_id then 'A delayed run waits for its time on thread %2$s.'
          else 'Run %1$s is active on thread %2$s.' end, v_run.active_run_id, v_run.thread_id),
        detail = '{"code": "thread_busy", "field": "multitask_strategy"}';
    end if;
  end loop;
  update duragraph.threads t set metadata = t.metadata || jsonb_build_object('graph_id', u.graph_id, 'assistant_id', u.assistant_id)
    from (select distinct on (x.shard, x.thread_id) x.*, p_tenant as tenant_id
        from unnest(p_new) x where not x.temporary order by x.shard, x.thread_id, x.ord desc) u
    where t.shard = any(array[u.shard]) and t.tenant_id = u.tenant_id and t.thread_id = u.thread_id
      and not t.metadata @> jsonb_build_object('graph_id', u.graph_id, 'assistant_id', u.assistant_id);
  return v_active;
end $$;
comment on function duragraph.enter_threads(integer, duragraph.new_run[]) is
  'Puts new runs into their threads'' lines and says which became the active one. Strategies are decided here, under the slot''s row lock. Only enqueued runs may share a thread in one call.';
