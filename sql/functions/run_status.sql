create or replace function duragraph.run_status(p_shard smallint, p_run uuid) returns text
language sql stable as $$
  select case when r.status <> 'pending' then r.status
    when exists (select 1 from duragraph.leases l where l.shard = r.shard and l.run_id = r.run_id) then 'running'
    else 'pending' end
  from duragraph.runs r where r.shard = p_shard and r.run_id = p_run
$$;
comment on function duragraph.run_status(smallint, uuid) is 'pending, running, success, error, timeout or interrupted; null for an unknown run.';
