create or replace function duragraph.notify_runs(p_runs uuid[], p_ready boolean default false) returns void
language sql volatile as $$
  select case when cardinality(p_runs) > 0 then pg_notify('duragraph_runs', array_to_string(p_runs[1:200], ',')) end,
    case when p_ready then pg_notify('duragraph_ready', '') end
$$;
comment on function duragraph.notify_runs(uuid[], boolean) is 'Hints to API processes that runs changed or became claimable. For people''s own statements; the API notifies in bundles after its commits.';
