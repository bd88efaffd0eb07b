create or replace function duragraph.get_worker(p_tenant integer, p_worker_id text)
returns json
language plpgsql
stable
as $$
declare
  v_worker json := (
    select duragraph.worker_json(w) from duragraph.workers w where w.tenant_id = p_tenant and w.worker_id = p_worker_id
  );
begin
  if v_worker is null then
    raise exception using
      errcode = 'DG404',
      message = 'Worker ''' || p_worker_id || ''' not found.',
      hint = 'It registers when it starts; GET /workers lists those that did.',
      detail = '{"code":"worker_not_found","field":"worker_id"}';
  end if;
  return v_worker;
end
$$;
comment on function duragraph.get_worker(integer, text) is 'A worker in the API''s form, or 404.';
