create or replace function duragraph.worker_json(p_worker duragraph.workers)
returns json
language sql
stable
as $$
  select json_build_object(
    'worker_id', p_worker.worker_id,
    'name', p_worker.worker_id,
    'status', case
      when p_worker.status = 'active' and coalesce(b.expires_at < duragraph.current_time(), true) then 'silent'
      else p_worker.status
    end,
    'healthy', p_worker.status <> 'stopped' and coalesce(b.expires_at >= duragraph.current_time(), false),
    'graphs', (
      select coalesce(json_agg(g.graph_id order by g.graph_id), '[]')
      from duragraph.graphs g where g.graph_key = any (p_worker.graph_keys)
    ),
    'capacity', p_worker.capacity,
    'active_runs', (select count(*) from duragraph.leases l where l.worker_key = p_worker.worker_key),
    'total_runs', coalesce(b.details -> 'total_runs', '0'),
    'failed_runs', coalesce(b.details -> 'failed_runs', '0'),
    'lease_seconds', p_worker.lease_seconds,
    'protocol', p_worker.protocol,
    'build_id', p_worker.build_id,
    'details', p_worker.details || coalesce(b.details, '{}'),
    'last_heartbeat', duragraph.iso(b.beat_at),
    'registered_at', duragraph.iso(p_worker.registered_at)
  )
  from (select) one
  left join duragraph.worker_heartbeats b on b.worker_key = p_worker.worker_key
$$;
comment on function duragraph.worker_json(duragraph.workers) is
  'A worker as the API shows it. status: active, draining, stopped, or silent when it is active but missed its heartbeats.';
