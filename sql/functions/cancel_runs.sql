create or replace function duragraph.cancel_runs(p_tenant integer, p_request jsonb) returns json
language plpgsql
set enable_seqscan = off set enable_hashjoin = off set enable_mergejoin = off set jit = off as $$
declare
  v_action text := coalesce(p_request ->> 'action', 'interrupt');
  v_reason text := coalesce(p_request ->> 'reason', 'cancelled by a request');
  v_out jsonb := '[]';
  v_run record;
begin
  if v_action not in ('interrupt', 'rollback') then
    raise exception using errcode = 'DG422', message = format('Unknown action "%s".', v_action), hint = 'Use interrupt or rollback.',
      detail = '{"code": "invalid_action", "field": "action"}';
  end if;
  -- All leases first, in the order in which batches of writes take them; what is claimed meanwhile is found below.
  perform 1 from duragraph.runs_to_cancel(p_tenant, p_request) r, duragraph.leases l
    where l.shard = any(array[duragraph.shard_of(r.run_id)]) and l.run_id = r.run_id order by l.shard, l.run_id for update of l;
  for v_run in
    select r.thread_id, r.temporary, array_agg(r.run_id order by r.run_id) as runs from duragraph.runs_to_cancel(p_tenant, p_request) r
    group by r.thread_id, r.temporary order by duragraph.shard_of(r.thread_id), r.thread_id
  loop
    if v_run.temporary then
      v_out := v_out || duragraph.end_stateless_run(p_tenant, v_run.runs[1], v_action, v_reason)::jsonb;
    else
      v_out := v_out || duragraph.end_thread_runs(p_tenant, v_run.thread_id, v_action, v_reason, v_run.runs)::jsonb;
    end if;
  end loop;
  if v_out = '[]' then
    raise exception using errcode = 'DG404', message = 'No such run is pending or running.',
      hint = 'It may have ended: GET the run to see.', detail = '{"code": "run_not_found", "field": "run_id"}';
  end if;
  return json_build_object('runs', v_out);
end $$;
comment on function duragraph.cancel_runs(integer, jsonb) is
  'Ends runs at once: {run_ids?, thread_id?, status? (pending, running, all), action: interrupt or rollback, reason?}. 404 when nothing matched.';
