create or replace function duragraph.tick_before(p_tick timestamptz, p_end timestamptz)
returns timestamptz
language sql
immutable
as $$
  select case when p_tick <= coalesce(p_end, 'infinity') then p_tick end
$$;
comment on function duragraph.tick_before(timestamptz, timestamptz) is 'The tick, or null when it is after the end: at the end itself a cron still fires.';
