create or replace function duragraph.maintain_partitions(p_weeks_ahead integer default 4) returns integer
language plpgsql as $$
declare
  v_made integer := 0;
  v_week timestamptz;
  v_name text;
  v_from uuid;
  v_to uuid;
begin
  perform pg_advisory_xact_lock(hashtext('duragraph.maintain_partitions'));
  for v_week in select generate_series(date_trunc('week', duragraph.current_time() at time zone 'utc') at time zone 'utc',
      duragraph.current_time() + make_interval(weeks => p_weeks_ahead), interval '1 week') loop
    v_name := 'events_' || to_char(v_week at time zone 'utc', 'IYYY"w"IW');
    continue when to_regclass('duragraph.' || v_name) is not null;
    v_from := duragraph.uuid_at(v_week);
    v_to := duragraph.uuid_at(v_week + interval '1 week');
    execute format('create table duragraph.%I (like duragraph.events including all)', v_name);
    -- What came while there was no partition for it is in the default one, which may not keep it.
    lock table duragraph.events_default in access exclusive mode;
    execute format('with moved as (delete from duragraph.events_default e where e.run_id >= %L and e.run_id < %L returning e.*)
      insert into duragraph.%I select * from moved', v_from, v_to, v_name);
    execute format('alter table duragraph.events attach partition duragraph.%I for values from (%L) to (%L)', v_name, v_from, v_to);
    execute format('comment on table duragraph.%I is %L', v_name, 'Events of runs created in the week from ' || to_char(v_week at time zone 'utc', 'YYYY-MM-DD') || '.');
    v_made := v_made + 1;
  end loop;
  return v_made;
end $$;
comment on function duragraph.maintain_partitions(integer) is 'Makes the weekly partitions of events that are missing, this week''s and those ahead. Answers how many.';
