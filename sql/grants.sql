-- Least privilege. Restated on every migrate, so that a new function or table is never left open.
--
-- | role             | may                                                                          |
-- |------------------|------------------------------------------------------------------------------|
-- | duragraph_api    | everything the control plane does: run all functions, read and write rows    |
-- | duragraph_worker | run the functions of the worker protocol, and see nothing else               |
-- | duragraph_reader | read tables and views                                                        |
--
-- They cannot log in: grant them to the logins you make. Roles belong to the whole server, so another database may have
-- made them already, or be making them now; an owner who may not create roles goes without.
do $$
declare
  v_role text;
begin
  foreach v_role in array array['duragraph_api', 'duragraph_worker', 'duragraph_reader'] loop
    begin
      execute format('create role %I nologin', v_role);
    exception
      when duplicate_object or unique_violation then
        null;
      when insufficient_privilege then
        raise notice 'role % is missing and % may not create it: its grants are left out', v_role, current_user;
    end;
  end loop;
end
$$;

-- PostgreSQL lets everybody run a new function: here nobody may but those named below.
revoke all on schema duragraph from public;
revoke all on all functions in schema duragraph from public;
revoke all on all tables in schema duragraph from public;

do $$
declare
  v_function regprocedure;
begin
  if to_regrole('duragraph_api') is not null then
    grant usage on schema duragraph to duragraph_api;
    grant select, insert, update, delete on all tables in schema duragraph to duragraph_api;
    grant usage, select on all sequences in schema duragraph to duragraph_api;
    grant execute on all functions in schema duragraph to duragraph_api;
    -- The queue of periodic duties; it is absent where only psql installed.
    if to_regnamespace('procrastinate') is not null then
      grant usage on schema procrastinate to duragraph_api;
      grant select, insert, update, delete on all tables in schema procrastinate to duragraph_api;
      grant usage, select on all sequences in schema procrastinate to duragraph_api;
      grant execute on all functions in schema procrastinate to duragraph_api;
    end if;
  end if;
  if to_regrole('duragraph_reader') is not null then
    grant usage on schema duragraph to duragraph_reader;
    grant select on all tables in schema duragraph to duragraph_reader;
    for v_function in
      select p.oid::regprocedure from pg_proc p
      where p.pronamespace = 'duragraph'::regnamespace
        and p.proname in ('current_time', 'iso', 'shard_of', 'why_not_running', 'why_not_claimed')
    loop
      execute format('grant execute on function %s to duragraph_reader', v_function);
    end loop;
  end if;
  if to_regrole('duragraph_worker') is not null then
    grant usage on schema duragraph to duragraph_worker;
    -- These run as their owner: a worker needs no table. Restating a function takes it back, and here it is said again.
    for v_function in
      select p.oid::regprocedure from pg_proc p
      where p.pronamespace = 'duragraph'::regnamespace
        and p.proname in (
          'register_worker', 'drain_worker', 'deregister_worker', 'heartbeat', 'claim_runs', 'lease_runs', 'append_events', 'commit_steps',
          'complete_runs', 'run_store_batch'
        )
    loop
      execute format('alter function %s security definer set search_path = pg_catalog, pg_temp', v_function);
      execute format('grant execute on function %s to duragraph_worker', v_function);
    end loop;
  end if;
end
$$;
