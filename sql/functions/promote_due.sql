create or replace function duragraph.promote_due(p_limit integer default 1000) returns integer
language plpgsql
set enable_seqscan = off set jit = off as $$
declare
  v_now timestamptz := duragraph.current_time();
  v_run record;
  v_moved integer := 0;
  v_active uuid;
begin
  -- Thread by thread, in the order in which everybody locks slots; before what holds one already, of which none is waited for.
  for v_run in
    select d.*, (d.ord >> 47) << 47 | nextval('duragraph.queue_order') as new_ord
    from (select s.* from duragraph.scheduled s where s.due_at <= v_now and not s.holds_slot order by s.due_at, s.ord limit p_limit) d
    order by d.shard, d.tenant_id, d.thread_id, d.due_at, d.ord
  loop
    perform 1 from duragraph.slots s where s.shard = v_run.shard and s.tenant_id = v_run.tenant_id and s.thread_id = v_run.thread_id for update;
    delete from duragraph.scheduled s where s.shard = v_run.shard and s.run_id = v_run.run_id;
    continue when not found;  -- promoted or cancelled by someone else meanwhile
    update duragraph.slots s set delayed = s.delayed - 1, active_run_id = coalesce(s.active_run_id, v_run.run_id),
        waiting = s.waiting + (s.active_run_id is not null)::integer
      where s.shard = v_run.shard and s.tenant_id = v_run.tenant_id and s.thread_id = v_run.thread_id
      returning s.active_run_id into v_active;
    update duragraph.runs r set ord = v_run.new_ord where r.shard = v_run.shard and r.run_id = v_run.run_id;
    if v_active = v_run.run_id then
      insert into duragraph.ready (graph_key, ord, shard, run_id, tenant_id)
        values (v_run.graph_key, v_run.new_ord, v_run.shard, v_run.run_id, v_run.tenant_id);
    else
      insert into duragraph.waiting (shard, tenant_id, thread_id, ord, run_id, graph_key)
        values (v_run.shard, v_run.tenant_id, v_run.thread_id, v_run.new_ord, v_run.run_id, v_run.graph_key);
    end if;
    v_moved := v_moved + 1;
  end loop;
  -- A new place at the end of the line: an old one would be behind the marks of those who claim.
  with due as materialized (
    select s.ctid from duragraph.scheduled s where s.due_at <= v_now and s.holds_slot order by s.due_at limit p_limit for update skip locked),
  gone as (delete from duragraph.scheduled s where s.ctid = any(array(select due.ctid from due)) returning s.*),
  live as materialized (
    select g.*, (g.ord >> 47) << 47 | nextval('duragraph.queue_order') as new_ord from (select * from gone order by due_at, ord) g),
  moved as (
    update duragraph.runs r set ord = live.new_ord from live where r.shard = any(array[live.shard]) and r.run_id = live.run_id),
  q as (
    insert into duragraph.ready (graph_key, ord, shard, run_id, tenant_id, attempt, last_seq)
      select live.graph_key, live.new_ord, live.shard, live.run_id, live.tenant_id, live.attempt, live.last_seq from live returning 1)
  select v_moved + count(*) into v_moved from q;
  return v_moved;
end $$;
comment on function duragraph.promote_due(integer) is 'Moves runs whose time has come from scheduled to ready, or to the end of the line of their thread. Answers how many.';
