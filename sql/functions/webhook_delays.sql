create or replace function duragraph.webhook_delays()
returns integer[]
language sql
immutable
parallel safe
as $$
  select array[5, 30, 120, 600, 1800, 3600, 7200]
$$;
comment on function duragraph.webhook_delays() is 'Seconds between the attempts of a delivery: eight attempts in not quite four hours.';
