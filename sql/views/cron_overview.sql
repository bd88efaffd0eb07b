create or replace view duragraph.cron_overview as
select
  c.tenant_id,
  c.cron_id,
  a.graph_id,
  c.assistant_id,
  c.thread_id,
  c.schedule,
  coalesce(c.timezone, 'UTC') as timezone,
  case
    when not c.enabled then 'disabled'
    when c.next_run_date is null then 'over'
    when c.next_run_date < duragraph.current_time() - interval '1 minute' then 'late'
    when c.last_error is not null then 'failing'
    else 'waiting'
  end as state,
  c.next_run_date,
  c.last_fired_at,
  c.last_run_id,
  c.last_error ->> 'message' as last_error,
  c.end_time,
  c.created_at
from duragraph.crons c
left join duragraph.assistants a on a.tenant_id = c.tenant_id and a.assistant_id = c.assistant_id;
comment on view duragraph.cron_overview is 'One row a cron: when it fires next, and what became of its last tick.';
comment on column duragraph.cron_overview.state is
  'waiting for its next tick; disabled; over: past its end_time; late: due for a minute, so no control plane fires crons; failing: its last tick made no run.';
comment on column duragraph.cron_overview.last_error is 'Why its last tick made no run; null when it did.';
