create or replace function duragraph.current_time() returns timestamptz
language sql stable as $$
  select case when coalesce(current_setting('duragraph.time', true), '') = '' then now()
    when has_table_privilege(session_user, 'duragraph.leases', 'update') then current_setting('duragraph.time')::timestamptz
    else now() end
$$;
comment on function duragraph.current_time() is
  'The clock of the engine: now(), or the setting duragraph.time, so that tests can hold it. Not for a login that may only call functions: it could end the leases of all.';
