create or replace view duragraph.queue_depth as
select
  g.tenant_id,
  g.graph_id,
  coalesce(a.ready, 0) as ready,
  coalesce(a.waiting, 0) as waiting,
  coalesce(a.scheduled, 0) as scheduled,
  coalesce(a.running, 0) as running,
  duragraph.current_time() - h.created_at as oldest_age,
  w.alive as workers_alive,
  w.capacity,
  g.graph_key
from duragraph.graphs g
left join (
  select
    r.graph_key,
    count(*) filter (where r.state = 'ready') as ready,
    count(*) filter (where r.state = 'waiting') as waiting,
    count(*) filter (where r.state in ('backing off', 'delayed')) as scheduled,
    count(*) filter (where r.state = 'running') as running
  from duragraph.active_runs r
  group by r.graph_key
) a on a.graph_key = g.graph_key
left join lateral (
  select r.created_at
  from (select q.shard, q.run_id from duragraph.ready q where q.graph_key = g.graph_key order by q.ord limit 1) q
  join duragraph.runs r on r.shard = q.shard and r.run_id = q.run_id
) h on true
cross join lateral (
  select count(*) as alive, coalesce(sum(k.capacity), 0) as capacity
  from duragraph.workers k
  join duragraph.worker_heartbeats b on b.worker_key = k.worker_key
  where g.graph_key = any (k.graph_keys) and k.status = 'active' and b.expires_at >= duragraph.current_time()
) w;
comment on view duragraph.queue_depth is 'One row a graph: how many runs are where, state changes that a worker makes among them, and who is there to take them.';
comment on column duragraph.queue_depth.ready is 'A worker may take them now.';
comment on column duragraph.queue_depth.waiting is 'Behind another run of their thread.';
comment on column duragraph.queue_depth.scheduled is 'Delayed, or backing off before the next attempt.';
comment on column duragraph.queue_depth.oldest_age is 'Age of the run at the head of the ready line: what a new run can expect to wait at least. Null when none is ready.';
comment on column duragraph.queue_depth.workers_alive is 'Active workers of the graph whose heartbeat is fresh.';
comment on column duragraph.queue_depth.capacity is 'How many runs those workers take at once, all their graphs together.';
