create or replace function duragraph.delete_run(p_tenant integer, p_thread uuid, p_run uuid) returns json
language plpgsql as $$
declare
  v_run duragraph.runs;
  v_gone json := '[]';
begin
  select r.* into v_run from duragraph.runs r
    where r.shard = duragraph.shard_of(p_run) and r.run_id = p_run and r.tenant_id = p_tenant and (p_thread is null or r.thread_id = p_thread);
  if not found then
    raise exception using errcode = 'DG404', message = 'Run not found.', hint = 'It may have been deleted already.',
      detail = '{"code": "run_not_found", "field": "run_id"}';
  end if;
  if v_run.status = 'pending' then
    v_gone := duragraph.cancel_runs(p_tenant, jsonb_build_object('run_ids', jsonb_build_array(p_run), 'action', 'rollback', 'reason', 'deleted')) -> 'runs';
  end if;
  perform duragraph.erase_runs(p_tenant, v_run.thread_id, array[p_run]);
  return json_build_object('runs', v_gone);
end $$;
comment on function duragraph.delete_run(integer, uuid, uuid) is 'Removes a run with its checkpoints and events, ending it first when it has not ended.';
