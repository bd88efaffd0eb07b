create or replace function duragraph.end_stateless_run(p_tenant integer, p_run uuid, p_action text, p_reason text) returns json
language plpgsql
set enable_seqscan = off set jit = off as $$
declare
  v_shard smallint := duragraph.shard_of(p_run);
  v_end duragraph.run_end;
  v_run duragraph.runs;
begin
  -- Claiming moves the row from ready to leases, a worker may give it back at once: who waited for a row that went looks again.
  for v_round in 1 .. 10 loop
    delete from duragraph.leases l where l.shard = v_shard and l.run_id = p_run and l.tenant_id = p_tenant
      returning l.shard, l.run_id, l.tenant_id, l.thread_id, true, l.graph_key, l.token, l.worker_key, l.attempt, l.last_seq,
        l.checkpoint_id, l.claimed_at, 'interrupted'::text, null::json, null::json, p_reason, null::double precision into v_end;
    exit when found;
    select r.* into v_run from duragraph.runs r where r.shard = v_shard and r.run_id = p_run and r.tenant_id = p_tenant and r.status = 'pending';
    if not found then
      return '[]';
    end if;
    delete from duragraph.ready q where q.graph_key = v_run.graph_key and q.ord = v_run.ord and q.run_id = p_run;
    if not found then
      delete from duragraph.scheduled s where s.shard = v_shard and s.run_id = p_run;
    end if;
    if found then
      v_end := (v_shard, p_run, p_tenant, v_run.thread_id, true, v_run.graph_key, null, null, v_run.attempt, v_run.last_seq,
        v_run.checkpoint_id, null, 'interrupted', null, null, p_reason, null)::duragraph.run_end;
      exit;
    end if;
  end loop;
  if v_end.run_id is null then
    return '[]';
  end if;
  perform duragraph.end_runs(array[
    (v_end.shard, v_end.run_id, v_end.tenant_id, v_end.thread_id, true, v_end.graph_key, null, v_end.worker_key, v_end.attempt, v_end.last_seq,
      v_end.checkpoint_id, v_end.started_at, 'interrupted', case p_action when 'rollback' then '{"error": "UserRollback"}' end, null, p_reason,
      null)::duragraph.run_end]);
  if p_action = 'rollback' then
    perform duragraph.erase_runs(p_tenant, v_end.thread_id, array[p_run]);
  end if;
  return json_build_array(json_build_object('run_id', p_run, 'thread_id', v_end.thread_id, 'worker_key', v_end.worker_key, 'token', v_end.token));
end $$;
comment on function duragraph.end_stateless_run(integer, uuid, text, text) is 'Ends a stateless run at once, wherever it is; [] when it has ended already.';
