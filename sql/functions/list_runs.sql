create or replace function duragraph.list_runs(p_tenant integer, p_thread uuid, p_options jsonb default '{}') returns json
language plpgsql stable
set enable_seqscan = off set jit = off as $$
begin
  if p_thread is not null then
    perform duragraph.find_thread(p_tenant, p_thread);
  end if;
  return (select coalesce(json_agg(case when p_options -> 'select' is null or jsonb_typeof(p_options -> 'select') <> 'array' then x.doc
      else (select coalesce(json_object_agg(e.key, e.value), '{}') from json_each(x.doc) e where p_options -> 'select' ? e.key) end order by x.run_id desc), '[]')
  from (
    select r.run_id, duragraph.run_json(r.run, r.status) as doc
    from (
      select r.run_id, r as run, case when r.status <> 'pending' then r.status
        when exists (select 1 from duragraph.leases l where l.shard = r.shard and l.run_id = r.run_id) then 'running' else 'pending' end as status
      from duragraph.runs r
      where r.shard = duragraph.shard_of(p_thread) and r.tenant_id = p_tenant and r.thread_id = p_thread and not r.temporary and r.kind = 'run' and p_thread is not null
      union all
      select r.run_id, r as run, case when r.status <> 'pending' then r.status
        when exists (select 1 from duragraph.leases l where l.shard = r.shard and l.run_id = r.run_id) then 'running' else 'pending' end as status
      from duragraph.runs r
      where p_thread is null and r.tenant_id = p_tenant and r.kind = 'run') r
    where p_options ->> 'status' is null or r.status = p_options ->> 'status'
    order by r.run_id desc
    limit coalesce((p_options ->> 'limit')::integer, 10) offset coalesce((p_options ->> 'offset')::integer, 0)) x);
end $$;
comment on function duragraph.list_runs(integer, uuid, jsonb) is 'Runs of a thread (null: of all), newest first: {limit, offset, status, select}.';
