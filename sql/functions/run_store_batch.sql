create or replace function duragraph.run_store_batch(p_run uuid, p_token bigint, p_ops json)
returns json
language plpgsql
as $$
declare
  v_tenant integer;
begin
  if exists (select from json_array_elements(p_ops) o where o.value ->> 'op' in ('put', 'delete', 'index')) then
    -- Held to the end: whoever takes the lease away waits until the writes are there for all to see.
    select l.tenant_id into v_tenant
    from duragraph.leases l
    where l.shard = duragraph.shard_of(p_run) and l.run_id = p_run and l.token = p_token
    for key share;
  else
    select l.tenant_id into v_tenant
    from duragraph.leases l
    where l.shard = duragraph.shard_of(p_run) and l.run_id = p_run and l.token = p_token;
  end if;
  if v_tenant is null then
    raise exception using
      errcode = 'DG409',
      message = format('The lease of run %s is lost.', p_run),
      hint = 'Stop the run: it was cancelled, has ended, or belongs to another attempt.',
      detail = '{"code":"lease_lost","field":"token"}';
  end if;
  return duragraph.store_batch(v_tenant, p_ops);
end
$$;
comment on function duragraph.run_store_batch(uuid, bigint, json) is
  'store_batch() for a run: only while the worker holds its lease, else 409 lease_lost and nothing is changed.';
