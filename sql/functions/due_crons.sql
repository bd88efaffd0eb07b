create or replace function duragraph.due_crons(p_limit integer default 200)
returns json
language sql
stable
as $$
  select coalesce(json_agg(json_build_object(
    'tenant_id', d.tenant_id,
    'cron_id', d.cron_id,
    'schedule', d.schedule,
    'timezone', d.timezone,
    'tick', d.next_run_date,
    'now', duragraph.iso(duragraph.current_time())
  ) order by d.next_run_date), '[]')
  from (
    select * from duragraph.crons c
    where c.enabled and c.next_run_date <= duragraph.current_time()
    order by c.next_run_date
    limit p_limit
  ) d
$$;
comment on function duragraph.due_crons(integer) is
  'Crons whose tick has come, longest due first: [{tenant_id, cron_id, schedule, timezone, tick, now}], for fire_crons().';
