create or replace function duragraph.current_time() returns timestamptz
language sql stable as $$
  select coalesce(nullif(current_setting('duragraph.time', true), '')::timestamptz, now())
$$;
comment on function duragraph.current_time() is 'The clock of the engine: now(), or the setting duragraph.time, so that tests can hold it.';
