create or replace function duragraph.list_workers(p_tenant integer, p_healthy boolean default null)
returns json
language sql
stable
as $$
  select json_build_object('workers', coalesce(json_agg(w.body order by w.worker_id), '[]'), 'total', count(*))
  from (
    select w.worker_id, duragraph.worker_json(w) as body from duragraph.workers w where w.tenant_id = p_tenant
  ) w
  where p_healthy is null or (w.body ->> 'healthy')::boolean = p_healthy
$$;
comment on function duragraph.list_workers(integer, boolean) is
  'Workers that registered: {workers: [...], total}; p_healthy keeps those that beat (true) or do not (false).';
