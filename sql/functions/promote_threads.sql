create or replace function duragraph.promote_threads(p_ends duragraph.run_end[]) returns boolean
language plpgsql
set enable_seqscan = off set enable_hashjoin = off set enable_mergejoin = off set jit = off as $$
declare
  v_runs uuid[];
  v_next integer;
begin
  -- Lock the slots first (an enqueue about to join the line holds the same row), then look at the lines with a new snapshot.
  select coalesce(array_agg(s.active_run_id), '{}') into v_runs from (
    select s.active_run_id from duragraph.slots s
    join (select e.shard, e.tenant_id, e.thread_id, e.run_id from unnest(p_ends) e where not e.temporary
        order by e.shard, e.tenant_id, e.thread_id) e
      on s.shard = any(array[e.shard]) and s.tenant_id = e.tenant_id and s.thread_id = e.thread_id and s.active_run_id = e.run_id
    for update of s) s;
  with head as materialized (
    select w.*, (w.ord >> 47) << 47 | nextval('duragraph.queue_order') as new_ord
    from unnest(p_ends) e, duragraph.slots s, lateral (
      select w.* from duragraph.waiting w where w.shard = s.shard and w.tenant_id = s.tenant_id and w.thread_id = s.thread_id
      order by w.ord limit 1) w
    where s.shard = any(array[e.shard]) and s.tenant_id = e.tenant_id and s.thread_id = e.thread_id and s.active_run_id = e.run_id
      and s.waiting > 0 and not e.temporary),
  gone as (
    delete from duragraph.waiting w using head
      where w.shard = any(array[head.shard]) and w.tenant_id = head.tenant_id and w.thread_id = head.thread_id and w.ord = head.ord),
  line as (
    update duragraph.slots s set active_run_id = head.run_id, waiting = s.waiting - 1 from head
      where s.shard = any(array[head.shard]) and s.tenant_id = head.tenant_id and s.thread_id = head.thread_id),
  moved as (
    update duragraph.runs r set ord = head.new_ord from head where r.shard = any(array[head.shard]) and r.run_id = head.run_id),
  q as (
    insert into duragraph.ready (graph_key, ord, shard, run_id, tenant_id)
      select head.graph_key, head.new_ord, head.shard, head.run_id, head.tenant_id from head returning 1)
  select count(*) into v_next from q;
  update duragraph.slots s set active_run_id = null from unnest(p_ends) e
    where s.shard = any(array[e.shard]) and s.tenant_id = e.tenant_id and s.thread_id = e.thread_id and s.active_run_id = any(v_runs) and s.delayed > 0;
  delete from duragraph.slots s using unnest(p_ends) e
    where s.shard = any(array[e.shard]) and s.tenant_id = e.tenant_id and s.thread_id = e.thread_id and s.active_run_id = any(v_runs);
  return v_next > 0;
end $$;
comment on function duragraph.promote_threads(duragraph.run_end[]) is
  'Frees the threads of ended runs: the first that waits becomes active and ready, an empty line loses its slot. True when one became ready.';
