create or replace function duragraph.promote_due(p_limit integer default 1000) returns integer
language plpgsql
set enable_seqscan = off set jit = off as $$
declare
  v_now timestamptz := duragraph.current_time();
  v_run duragraph.scheduled;
  v_moved integer;
  v_active uuid;
begin
  with due as materialized (
    select s.ctid from duragraph.scheduled s where s.due_at <= v_now and s.holds_slot order by s.due_at limit p_limit for update skip locked),
  gone as (delete from duragraph.scheduled s where s.ctid = any(array(select due.ctid from due)) returning s.*),
  q as (
    insert into duragraph.ready (graph_key, ord, shard, run_id, tenant_id, attempt, last_seq)
      select g.graph_key, g.ord, g.shard, g.run_id, g.tenant_id, g.attempt, g.last_seq from gone g returning 1)
  select count(*) into v_moved from q;
  for v_run in
    select s.* from duragraph.scheduled s where s.due_at <= v_now and not s.holds_slot order by s.due_at, s.ord limit p_limit
  loop
    perform 1 from duragraph.slots s where s.shard = v_run.shard and s.tenant_id = v_run.tenant_id and s.thread_id = v_run.thread_id for update;
    delete from duragraph.scheduled s where s.shard = v_run.shard and s.run_id = v_run.run_id;
    continue when not found;  -- promoted or cancelled by someone else meanwhile
    update duragraph.slots s set delayed = s.delayed - 1, active_run_id = coalesce(s.active_run_id, v_run.run_id),
        waiting = s.waiting + (s.active_run_id is not null)::integer
      where s.shard = v_run.shard and s.tenant_id = v_run.tenant_id and s.thread_id = v_run.thread_id
      returning s.active_run_id into v_active;
    if v_active = v_run.run_id then
      insert into duragraph.ready (graph_key, ord, shard, run_id, tenant_id)
        values (v_run.graph_key, v_run.ord, v_run.shard, v_run.run_id, v_run.tenant_id);
    else
      insert into duragraph.waiting (shard, tenant_id, thread_id, ord, run_id, graph_key)
        values (v_run.shard, v_run.tenant_id, v_run.thread_id, v_run.ord, v_run.run_id, v_run.graph_key);
    end if;
    v_moved := v_moved + 1;
  end loop;
  return v_moved;
end $$;
comment on function duragraph.promote_due(integer) is 'Moves runs whose time has come from scheduled to ready, or into the line of their thread. Answers how many.';
