create or replace function duragraph.register_worker(p_tenant integer, p_request jsonb) returns json
language plpgsql as $$
declare
  v_worker duragraph.workers;
  v_graphs text[];
begin
  if coalesce(p_request ->> 'worker_id', '') = '' then
    raise exception using errcode = 'DG422', message = 'A worker needs a worker_id.', hint = 'Send any name that is unique among workers.',
      detail = '{"code": "invalid_worker", "field": "worker_id"}';
  end if;
  v_graphs := array(select distinct g ->> 'graph_id' from jsonb_array_elements(coalesce(p_request -> 'graphs', '[]')) g
    where coalesce(g ->> 'graph_id', '') <> '' order by 1);
  perform duragraph.register_graph(p_tenant, g, p_request ->> 'build_id')
    from jsonb_array_elements(coalesce(p_request -> 'graphs', '[]')) g where coalesce(g ->> 'graph_id', '') <> '' order by g ->> 'graph_id';
  insert into duragraph.workers as w (tenant_id, worker_id, protocol, capacity, lease_seconds, graph_keys, build_id, details)
    values (p_tenant, p_request ->> 'worker_id', coalesce((p_request ->> 'protocol')::smallint, 2), coalesce((p_request ->> 'capacity')::integer, 10),
      coalesce((p_request ->> 'lease_seconds')::integer, 30),
      array(select g.graph_key from duragraph.graphs g where g.tenant_id = p_tenant and g.graph_id = any(v_graphs) order by 1),
      p_request ->> 'build_id', coalesce(p_request -> 'details', '{}'))
    on conflict (tenant_id, worker_id) do update set protocol = excluded.protocol, capacity = excluded.capacity, lease_seconds = excluded.lease_seconds,
      graph_keys = excluded.graph_keys, build_id = excluded.build_id, details = excluded.details, status = 'active',
      registered_at = duragraph.current_time()
    returning w.* into v_worker;
  insert into duragraph.worker_heartbeats (worker_key, beat_at, expires_at)
    values (v_worker.worker_key, duragraph.current_time(), duragraph.current_time() + make_interval(secs => v_worker.lease_seconds))
    on conflict (worker_key) do update set beat_at = excluded.beat_at, expires_at = excluded.expires_at;
  return json_build_object('worker_key', v_worker.worker_key, 'worker_id', v_worker.worker_id, 'lease_seconds', v_worker.lease_seconds,
    'graph_ids', v_graphs);
end $$;
comment on function duragraph.register_worker(integer, jsonb) is
  'Registers a worker or registers it again: {worker_id, capacity, lease_seconds, build_id, protocol, graphs: [{graph_id, definition, schemas}], details}.';
