create or replace view duragraph.run_overview as
select
  r.tenant_id,
  r.run_id,
  case when l.run_id is not null then 'running' else r.status end as status,
  g.graph_id,
  case when not r.temporary then r.thread_id end as thread_id,
  w.worker_id,
  coalesce(l.attempt, r.attempt) as attempt,
  r.max_attempts,
  duragraph.current_time() - r.created_at as age,
  duragraph.current_time() - l.claimed_at as lease_age,
  case when r.status <> 'pending' then r.ended_at - coalesce(r.started_at, r.created_at) end as took,
  s.name as last_step,
  coalesce(r.reason, (r.error ->> 'error') || ': ' || (r.error ->> 'message')) as reason,
  r.created_at,
  r.ended_at,
  r.shard,
  r.kind
from duragraph.runs r
left join duragraph.graphs g on g.graph_key = r.graph_key
left join duragraph.leases l on l.shard = r.shard and l.run_id = r.run_id
left join duragraph.workers w on w.worker_key = coalesce(l.worker_key, r.worker_key)
left join lateral (
  select p.name
  from duragraph.steps p
  where p.shard = r.shard and p.tenant_id = r.tenant_id and p.thread_id = r.thread_id and p.run_id = r.run_id
  order by p.ended_at desc, p.started_at desc
  limit 1
) s on true;
comment on view duragraph.run_overview is
  'One row a run. The newest: where tenant_id = 1 order by run_id desc limit 20 (ids sort by time; both columns have an index).';
comment on column duragraph.run_overview.status is 'pending, running, success, error, timeout or interrupted.';
comment on column duragraph.run_overview.thread_id is 'Null for a stateless run.';
comment on column duragraph.run_overview.worker_id is 'The worker that has it, or the last that had it.';
comment on column duragraph.run_overview.lease_age is 'How long its present worker has had it; null when it is not running.';
comment on column duragraph.run_overview.last_step is 'The node or call it completed last.';
comment on column duragraph.run_overview.kind is 'run; or update: a change of state that a worker makes, which the API shows as none of its runs.';
comment on column duragraph.run_overview.reason is 'Why it ended as it did, or why it waits.';
