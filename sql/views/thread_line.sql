create or replace view duragraph.thread_line as
select
  s.tenant_id,
  s.thread_id,
  m.place,
  m.run_id,
  m.state,
  g.graph_id,
  r.multitask_strategy,
  m.due_at,
  duragraph.current_time() - r.created_at as age,
  s.shard,
  r.kind
from duragraph.slots s
cross join lateral (
  select
    0::bigint as place, s.active_run_id as run_id, case
      when l.run_id is not null then 'running' when d.run_id is not null then 'backing off' else 'ready'
    end as state, d.due_at
  from (select) one
  left join duragraph.leases l on l.shard = s.shard and l.run_id = s.active_run_id
  left join duragraph.scheduled d on d.shard = s.shard and d.run_id = s.active_run_id
  where s.active_run_id is not null
  union all
  select row_number() over (order by w.ord), w.run_id, 'waiting', null
  from duragraph.waiting w
  where w.shard = s.shard and w.tenant_id = s.tenant_id and w.thread_id = s.thread_id
  union all
  select null, d.run_id, 'delayed', d.due_at
  from duragraph.scheduled d
  where s.delayed > 0 and d.shard = s.shard and d.tenant_id = s.tenant_id and d.thread_id = s.thread_id and not d.holds_slot
) m
join duragraph.runs r on r.shard = s.shard and r.run_id = m.run_id
left join duragraph.graphs g on g.graph_key = r.graph_key;
comment on view duragraph.thread_line is 'The line of each busy thread: who is first, who waits behind it in which order, and who joins it later.';
comment on column duragraph.thread_line.place is '0 for the active run, then 1, 2, ... in the order they will start; null for one that joins the line at due_at.';
comment on column duragraph.thread_line.state is 'running, ready, backing off (the active run); waiting; delayed.';
comment on column duragraph.thread_line.kind is 'As in run_overview.';
