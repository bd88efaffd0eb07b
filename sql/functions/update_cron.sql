create or replace function duragraph.update_cron(p_tenant integer, p_cron uuid, p_request json, p_timing json)
returns json
language plpgsql
as $$
declare
  v_asked jsonb := p_request;
  v_cron duragraph.crons;
begin
  perform from duragraph.crons c where c.tenant_id = p_tenant and c.cron_id = p_cron for update;
  v_cron := duragraph.find_cron(p_tenant, p_cron);
  v_cron.schedule := coalesce(v_asked ->> 'schedule', v_cron.schedule);
  v_cron.timezone := case when v_asked ? 'timezone' then v_asked ->> 'timezone' else v_cron.timezone end;
  if (v_cron.schedule, v_cron.timezone) is distinct from (p_timing ->> 'schedule', p_timing ->> 'timezone') then
    return null;
  end if;
  v_cron.end_time := case when v_asked ? 'end_time' then (p_timing ->> 'end_time')::timestamptz else v_cron.end_time end;
  v_cron.metadata := v_cron.metadata || coalesce(nullif(v_asked -> 'metadata', 'null'), '{}');
  v_cron.payload := duragraph.merged_json(v_cron.payload, p_request);
  update duragraph.crons c
  set
    schedule = v_cron.schedule,
    timezone = v_cron.timezone,
    on_run_completed = case when c.thread_id is null then coalesce(v_asked ->> 'on_run_completed', c.on_run_completed) end,
    enabled = coalesce((v_asked ->> 'enabled')::boolean, c.enabled),
    end_time = v_cron.end_time,
    next_run_date = duragraph.tick_before((p_timing ->> 'next_run_date')::timestamptz, v_cron.end_time),
    payload = duragraph.cron_payload(v_cron),
    metadata = v_cron.metadata,
    updated_at = duragraph.current_time()
  where c.tenant_id = p_tenant and c.cron_id = p_cron
  returning * into v_cron;
  return duragraph.cron_json(v_cron);
end
$$;
comment on function duragraph.update_cron(integer, uuid, json, json) is
  'Changes what is sent: metadata is merged, the rest replaced, end_time and timezone cleared by null. next_run_date is p_timing''s,
computed for {schedule, timezone}; null, and nothing changed, when these are no longer the cron''s: look again.';
