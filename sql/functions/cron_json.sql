create or replace function duragraph.cron_json(p_cron duragraph.crons, p_select text[] default null)
returns json
language sql
stable
as $$
  with whole as (
    select json_build_object(
      'cron_id', p_cron.cron_id,
      'assistant_id', p_cron.assistant_id,
      'thread_id', p_cron.thread_id,
      'user_id', p_cron.user_id,
      'end_time', duragraph.iso(p_cron.end_time),
      'schedule', p_cron.schedule,
      'timezone', p_cron.timezone,
      'payload', p_cron.payload,
      'next_run_date', to_char(p_cron.next_run_date at time zone 'utc', 'YYYY-MM-DD"T"HH24:MI:SS') || '+00:00',
      'metadata', p_cron.metadata,
      'on_run_completed', p_cron.on_run_completed,
      'enabled', p_cron.enabled,
      'created_at', duragraph.iso(p_cron.created_at),
      'updated_at', duragraph.iso(p_cron.updated_at)
    ) as body
  )
  select case
    when p_select is null then body
    else (select coalesce(json_object_agg(f.key, f.value), '{}') from json_each(body) f where f.key = any (p_select))
  end
  from whole
$$;
comment on function duragraph.cron_json(duragraph.crons, text[]) is
  'A cron as the API shows it; with p_select only those fields.';
