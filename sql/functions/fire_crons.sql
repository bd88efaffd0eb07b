create or replace function duragraph.fire_crons(p_ticks json)
returns json
language plpgsql
as $$
declare
  v_due duragraph.crons[];
  v_tenant integer;
  v_fired jsonb := '[]';
begin
  -- Who holds the row and still finds the tick in it fires; whoever comes later finds the next one. Crons are locked
  -- before slots, as in delete_thread().
  v_due := array(
    select c
    from json_to_recordset(p_ticks) as t (tenant_id integer, cron_id uuid, tick timestamptz)
    join duragraph.crons c on c.tenant_id = t.tenant_id and c.cron_id = t.cron_id and c.next_run_date = t.tick
    where c.enabled
    order by c.tenant_id, c.cron_id
    for update of c skip locked
  );
  for v_tenant in select distinct c.tenant_id from unnest(v_due) c order by 1 loop
    v_fired := v_fired || duragraph.run_crons(v_tenant, array(select c from unnest(v_due) c where c.tenant_id = v_tenant));
  end loop;
  update duragraph.crons c
  set
    next_run_date = duragraph.tick_before(t.next_run_date, c.end_time),
    last_fired_at = duragraph.current_time(),
    last_run_id = coalesce(f.run_id, c.last_run_id),
    last_error = f.error
  from jsonb_to_recordset(v_fired) as f (cron_id uuid, run_id uuid, error json)
  join json_to_recordset(p_ticks) as t (tenant_id integer, cron_id uuid, next_run_date timestamptz) on t.cron_id = f.cron_id
  where c.tenant_id = t.tenant_id and c.cron_id = t.cron_id;
  return v_fired;
end
$$;
comment on function duragraph.fire_crons(json) is
  'Makes the runs of ticks that nobody has fired yet and advances their crons, in one transaction: [{tenant_id, cron_id, tick,
next_run_date: the first tick after now}] -> [{cron_id, run_id} or {cron_id, error: {error, message, at}}]. Missed ticks before now make no run of their own.';
