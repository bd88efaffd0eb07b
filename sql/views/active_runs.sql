create or replace view duragraph.active_runs as
select l.shard, l.run_id, l.tenant_id, l.graph_key, 'running' as state, l.worker_key, l.claimed_at as since, null::timestamptz as due_at
from duragraph.leases l
union all
select q.shard, q.run_id, q.tenant_id, q.graph_key, 'ready', null, null, null
from duragraph.ready q
union all
select n.shard, n.run_id, n.tenant_id, n.graph_key, 'waiting', null, null, null
from duragraph.waiting n
union all
select s.shard, s.run_id, s.tenant_id, s.graph_key, case when s.attempt > 0 then 'backing off' else 'delayed' end, null, null, s.due_at
from duragraph.scheduled s;
comment on view duragraph.active_runs is 'Every run that has not ended, from the queue tables alone: cheap however long the history is.';
comment on column duragraph.active_runs.state is
  'running: a worker has it. ready: a worker may take it. waiting: behind another run of its thread. backing off: before its next attempt. delayed: as its creator asked.';
comment on column duragraph.active_runs.since is 'When its worker claimed it.';
comment on column duragraph.active_runs.due_at is 'When a delayed run, or one that backs off, becomes ready.';
