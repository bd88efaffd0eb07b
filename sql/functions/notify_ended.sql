create or replace function duragraph.notify_ended(p_ended json) returns void
language plpgsql as $$
begin
  perform duragraph.notify_runs(array(select (e ->> 'run_id')::uuid from json_array_elements(p_ended) e), false);
  perform pg_notify('duragraph_workers', (e ->> 'worker_key') || ':' || (e ->> 'token'))
    from json_array_elements(p_ended) e where e ->> 'token' is not null;
end $$;
comment on function duragraph.notify_ended(json) is
  'Hints about runs that were ended from outside, as end_thread_runs() answers them: to their readers, and to the workers that must stop.';
