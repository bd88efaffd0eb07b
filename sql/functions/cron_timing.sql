create or replace function duragraph.cron_timing(p_tenant integer, p_cron uuid)
returns json
language sql
stable
as $$
  select json_build_object('schedule', c.schedule, 'timezone', c.timezone, 'now', duragraph.iso(duragraph.current_time()))
  from duragraph.find_cron(p_tenant, p_cron) c
$$;
comment on function duragraph.cron_timing(integer, uuid) is
  'What a cron''s next tick is computed from, {schedule, timezone, now}: SQL does not read cron expressions.';
