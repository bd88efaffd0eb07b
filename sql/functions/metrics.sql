create or replace function duragraph.metrics(p_tenant integer)
returns json
language sql
stable
set jit = off
as $$
  with depth as (
    select * from duragraph.queue_depth q where q.tenant_id = p_tenant
  ),
  alive as (
    select count(*) as workers, coalesce(sum(h.capacity), 0) as capacity
    from duragraph.worker_health h
    where h.tenant_id = p_tenant and h.status = 'active'
  ),
  -- Ids of runs begin with their time.
  blocked as (
    select duragraph.current_time() - r.created_at as age
    from (select w.shard, w.run_id from duragraph.waiting w where w.tenant_id = p_tenant order by w.run_id limit 1) w
    join duragraph.runs r on r.shard = w.shard and r.run_id = w.run_id
  ),
  total as (
    select
      coalesce(sum(ready), 0) as ready, coalesce(sum(waiting), 0) as waiting, coalesce(sum(scheduled), 0) as scheduled,
      coalesce(sum(running), 0) as running, max(oldest_age) as oldest_age
    from depth
  )
  select json_build_object(
    'queue', json_build_object(
      'n_pending', t.ready + t.waiting + t.scheduled,
      'n_running', t.running,
      'n_ready', t.ready,
      'n_waiting', t.waiting,
      'n_scheduled', t.scheduled,
      'pending_runs_wait_time_max_secs', extract(epoch from greatest(t.oldest_age, (select b.age from blocked b))),
      'pending_unblocked_runs_wait_time_max_secs', extract(epoch from t.oldest_age)
    ),
    'workers', json_build_object(
      'alive', a.workers, 'max', a.capacity, 'active', t.running, 'available', greatest(a.capacity - t.running, 0)
    ),
    'graphs', (
      select coalesce(json_agg(json_build_object(
        'graph_id', d.graph_id, 'ready', d.ready, 'waiting', d.waiting, 'scheduled', d.scheduled, 'running', d.running,
        'oldest_ready_secs', extract(epoch from d.oldest_age), 'workers_alive', d.workers_alive, 'capacity', d.capacity
      ) order by d.graph_id), '[]')
      from depth d
    )
  )
  from total t, alive a
$$;
comment on function duragraph.metrics(integer) is
  'What there is to measure: {queue, workers, graphs}, all of it counted now from the queue tables.';
