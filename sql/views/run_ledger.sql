create or replace view duragraph.run_ledger as
select
  r.tenant_id,
  r.run_id,
  row_number() over (partition by r.tenant_id, r.run_id order by s.ended_at, s.started_at, s.task_id, s.step_key) as n,
  s.name as what,
  s.kind,
  nullif(s.step_key, '') as step_key,
  s.started_at,
  s.ended_at - s.started_at as took,
  w.worker_id,
  s.attempt,
  s.details,
  s.task_id,
  s.checkpoint_id,
  r.shard
from duragraph.runs r
join duragraph.steps s
  on s.shard = r.shard and s.tenant_id = r.tenant_id and s.thread_id = r.thread_id and s.run_id = r.run_id
left join duragraph.workers w on w.worker_key = s.worker_key;
comment on view duragraph.run_ledger is
  'What a run completed, in order: each node and each journaled call once, whichever worker and attempt it was. Ask by tenant_id and run_id.';
comment on column duragraph.run_ledger.what is 'Name of the node, or of the call inside it.';
comment on column duragraph.run_ledger.step_key is 'Null for the node itself; else which call inside it.';
comment on column duragraph.run_ledger.checkpoint_id is 'The checkpoint the node started from.';
comment on column duragraph.run_ledger.details is 'What the worker noted: model, tokens, cost.';
