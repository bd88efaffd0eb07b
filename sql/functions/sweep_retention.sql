create or replace function duragraph.sweep_retention(p_keep interval default interval '30 days', p_limit integer default 1000) returns integer
language plpgsql
set enable_seqscan = off set jit = off as $$
declare
  v_before timestamptz := duragraph.current_time() - p_keep;
  v_part record;
  v_run record;
  v_gone integer := 0;
begin
  for v_part in
    select c.oid::regclass as name from pg_inherits i join pg_class c on c.oid = i.inhrelid
    where i.inhparent = 'duragraph.events'::regclass and c.relname ~ '^events_\d{4}w\d{2}$'
      and to_date(substr(c.relname, 8), 'IYYY"w"IW') + 7 < (v_before at time zone 'utc')::date
  loop
    execute format('drop table %s', v_part.name);
    v_gone := v_gone + 1;
  end loop;
  delete from duragraph.idempotency_keys k where k.created_at < duragraph.current_time() - interval '1 day';
  for v_run in
    select r.tenant_id, r.thread_id, array_agg(r.run_id) as runs from (
      select r.* from duragraph.tenants t, duragraph.runs r
      where r.tenant_id = t.tenant_id and r.run_id < duragraph.uuid_at(v_before) and r.temporary and r.status <> 'pending' limit p_limit) r
    group by r.tenant_id, r.thread_id
  loop
    perform duragraph.erase_runs(v_run.tenant_id, v_run.thread_id, v_run.runs);
    v_gone := v_gone + cardinality(v_run.runs);
  end loop;
  return v_gone;
end $$;
comment on function duragraph.sweep_retention(interval, integer) is
  'Drops event partitions and stateless runs older than p_keep, and idempotency keys older than a day. Threads and their runs stay until deleted.';
