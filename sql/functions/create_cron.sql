create or replace function duragraph.create_cron(p_tenant integer, p_thread uuid, p_request json, p_timing json)
returns json
language plpgsql
as $$
declare
  v_cron duragraph.crons;
  v_assistant text := p_request ->> 'assistant_id';
begin
  v_cron.cron_id := duragraph.make_id();
  -- Held: deleting the assistant or the thread waits, then finds this cron and deletes it too.
  select a.assistant_id into v_cron.assistant_id
  from duragraph.assistants a
  where a.tenant_id = p_tenant and a.assistant_id = case
    when v_assistant ~ '^[0-9a-fA-F]{8}-?([0-9a-fA-F]{4}-?){3}[0-9a-fA-F]{12}$' then v_assistant::uuid
    else (select g.assistant_id from duragraph.graphs g where g.tenant_id = p_tenant and g.graph_id = v_assistant)
  end
  for key share;
  if not found then
    raise exception using
      errcode = 'DG404',
      message = format('Assistant ''%s'' not found.', v_assistant),
      hint = 'Give the id of an assistant, or the name of a graph that a worker has registered.',
      detail = '{"code":"assistant_not_found","field":"assistant_id"}';
  end if;
  if p_thread is not null then
    perform from duragraph.threads t
    where t.shard = duragraph.shard_of(p_thread) and t.tenant_id = p_tenant and t.thread_id = p_thread
    for key share;
    perform duragraph.find_thread(p_tenant, p_thread);
  end if;
  v_cron.end_time := (p_timing ->> 'end_time')::timestamptz;
  v_cron.metadata := coalesce(nullif((p_request -> 'metadata')::jsonb, 'null'), '{}');
  v_cron.payload := p_request;
  insert into duragraph.crons (
    tenant_id, cron_id, assistant_id, thread_id, schedule, timezone, on_run_completed, enabled, end_time, next_run_date, payload,
    metadata, created_at, updated_at
  )
  values (
    p_tenant, v_cron.cron_id, v_cron.assistant_id, p_thread, p_timing ->> 'schedule', p_timing ->> 'timezone',
    case when p_thread is null then coalesce(p_request ->> 'on_run_completed', 'delete') end,
    coalesce((p_request ->> 'enabled')::boolean, true), v_cron.end_time,
    duragraph.tick_before((p_timing ->> 'next_run_date')::timestamptz, v_cron.end_time),
    duragraph.cron_payload(v_cron), v_cron.metadata, duragraph.current_time(), duragraph.current_time()
  )
  returning * into v_cron;
  return duragraph.cron_json(v_cron);
end
$$;
comment on function duragraph.create_cron(integer, uuid, json, json) is
  'Makes a cron, of a thread or (null) with a new thread for each run, from the body of the API and from what was read out of it:
{schedule, timezone, end_time, next_run_date: the first tick after now}.';
