create or replace function duragraph.delete_run(p_tenant integer, p_thread uuid, p_run uuid) returns json
language plpgsql
set enable_seqscan = off set jit = off as $$
declare
  v_shard smallint := duragraph.shard_of(p_run);
  v_run duragraph.runs;
  v_gone json := '[]';
begin
  for v_round in 1 .. 10 loop
    select r.* into v_run from duragraph.runs r
      where r.shard = v_shard and r.run_id = p_run and r.tenant_id = p_tenant and r.kind = 'run' and (p_thread is null or r.thread_id = p_thread);
    if not found then
      raise exception using errcode = 'DG404', message = 'Run not found.', hint = 'It may have been deleted already.',
        detail = '{"code": "run_not_found", "field": "run_id"}';
    end if;
    if v_run.status = 'pending' and v_run.temporary then
      v_gone := duragraph.end_stateless_run(p_tenant, p_run, 'interrupt', 'deleted');
    elsif v_run.status = 'pending' then
      v_gone := duragraph.end_thread_runs(p_tenant, v_run.thread_id, 'interrupt', 'deleted', array[p_run]);
    end if;
    -- Held, so that nobody retries it meanwhile.
    perform 1 from duragraph.runs r where r.shard = v_shard and r.run_id = p_run and r.status <> 'pending' for update;
    exit when found;
  end loop;
  if exists (
      select 1 from duragraph.slots s
      join duragraph.leases l on l.shard = s.shard and l.run_id = s.active_run_id and l.checkpoint_id is null
      join duragraph.threads t on t.shard = s.shard and t.tenant_id = s.tenant_id and t.thread_id = s.thread_id
      join duragraph.checkpoints c on c.shard = t.shard and c.tenant_id = t.tenant_id and c.thread_id = t.thread_id and c.checkpoint_ns = ''
        and c.checkpoint_id = t.checkpoint_id
      where s.shard = v_shard and s.tenant_id = p_tenant and s.thread_id = v_run.thread_id and c.run_id = p_run) then
    raise exception using errcode = 'DG409', message = 'The next run of the thread has just started from what this one left.',
      hint = 'Cancel that run, or delete this one when it has ended.', detail = '{"code": "thread_busy", "field": "run_id"}';
  end if;
  delete from duragraph.idempotency_keys k where k.tenant_id = p_tenant and k.run_id = p_run;
  perform duragraph.erase_runs(p_tenant, v_run.thread_id, array[p_run]);
  return json_build_object('runs', v_gone);
end $$;
comment on function duragraph.delete_run(integer, uuid, uuid) is 'Removes a run with its checkpoints, events and key, ending it first when it has not ended.';
