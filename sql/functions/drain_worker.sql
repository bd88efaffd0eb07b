create or replace function duragraph.drain_worker(p_tenant integer, p_worker_id text) returns json
language plpgsql as $$
declare
  v_worker duragraph.workers;
begin
  update duragraph.workers w set status = 'draining' where w.tenant_id = p_tenant and w.worker_id = p_worker_id returning w.* into v_worker;
  if not found then
    raise exception using errcode = 'DG404', message = format('No worker "%s".', p_worker_id), hint = 'select * from duragraph.worker_health lists them.',
      detail = '{"code": "worker_not_found", "field": "worker_id"}';
  end if;
  return json_build_object('worker_id', v_worker.worker_id, 'status', v_worker.status,
    'active_runs', (select count(*) from duragraph.leases l where l.worker_key = v_worker.worker_key));
end $$;
comment on function duragraph.drain_worker(integer, text) is 'Gives a worker no more runs; those it has go on. Registering again ends it.';
