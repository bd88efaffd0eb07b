create or replace view duragraph.stuck_runs as
select
  a.tenant_id,
  a.run_id,
  a.state,
  g.graph_id,
  w.worker_id,
  duragraph.current_time() - p.at as stuck_for,
  case
    when a.state <> 'running' then duragraph.why_not_running(a.run_id)
    when p.silent then 'Its worker is silent since ' || coalesce(duragraph.iso(b.beat_at), 'it registered')
      || ': it goes back to the queue at the next heartbeat of any worker.'
    else 'No event and no step since ' || duragraph.iso(p.at) || ', while its worker beats: look at the code of its node, or select duragraph.requeue_run(''' || a.run_id || ''').'
  end as reason,
  r.created_at
from duragraph.active_runs a
join duragraph.runs r on r.shard = a.shard and r.run_id = a.run_id
join duragraph.graphs g on g.graph_key = a.graph_key
left join duragraph.leases l on l.shard = a.shard and l.run_id = a.run_id
left join duragraph.workers w on w.worker_key = a.worker_key
left join duragraph.worker_heartbeats b on b.worker_key = a.worker_key
cross join lateral (
  select
    l.run_id is not null and greatest(l.expires_at, b.expires_at) < duragraph.current_time() as silent,
    greatest(coalesce(a.due_at, a.since, r.created_at), (
      select max(e.at) from duragraph.events e where e.shard = a.shard and e.run_id = a.run_id and e.seq = l.last_seq
    ), (
      select max(s.ended_at) from duragraph.steps s
      where l.run_id is not null and s.shard = r.shard and s.tenant_id = r.tenant_id and s.thread_id = r.thread_id
        and s.run_id = a.run_id
    )) as at
) p
where case
  when p.silent then true
  when a.state = 'running' then p.at < duragraph.current_time() - interval '10 minutes'
  else p.at < duragraph.current_time() - interval '1 minute'
end;
comment on view duragraph.stuck_runs is
  'Runs that somebody should look at, with the reason: running with a silent worker or without any progress for 10 minutes, or startable for over a minute and not started.';
comment on column duragraph.stuck_runs.state is 'As in active_runs.';
comment on column duragraph.stuck_runs.stuck_for is 'Since its last event or step when it runs, since it was created or due when it does not.';
