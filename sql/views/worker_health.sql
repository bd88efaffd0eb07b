create or replace view duragraph.worker_health as
select
  w.tenant_id,
  w.worker_id,
  case when w.status = 'active' and coalesce(b.expires_at < duragraph.current_time(), true) then 'silent' else w.status end as status,
  array(select g.graph_id from duragraph.graphs g where g.graph_key = any (w.graph_keys) order by g.graph_id) as graphs,
  coalesce(l.held, 0) as running,
  w.capacity,
  l.oldest as oldest_lease,
  duragraph.current_time() - b.beat_at as last_beat,
  w.lease_seconds,
  w.protocol,
  w.build_id,
  w.registered_at,
  w.worker_key
from duragraph.workers w
left join duragraph.worker_heartbeats b on b.worker_key = w.worker_key
left join lateral (
  select count(*) as held, duragraph.current_time() - min(x.claimed_at) as oldest
  from duragraph.leases x
  where x.worker_key = w.worker_key
) l on true;
comment on view duragraph.worker_health is 'One row a worker that registered: alive or not, and how loaded.';
comment on column duragraph.worker_health.status is 'active, draining (gets no more runs), stopped, or silent: active but without a heartbeat for its lease_seconds.';
comment on column duragraph.worker_health.oldest_lease is 'How long it has had the run it has had longest.';
comment on column duragraph.worker_health.last_beat is 'Time since its last heartbeat.';
comment on column duragraph.worker_health.protocol is '1 the published protocol, 2 ours.';
