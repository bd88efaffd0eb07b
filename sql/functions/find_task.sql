create or replace function duragraph.find_task(p_tenant integer, p_task uuid)
returns json
language plpgsql
stable
set enable_seqscan = off set jit = off
as $$
declare
  v_shard smallint := duragraph.shard_of(p_task);
  v_run duragraph.runs;
  v_last duragraph.runs;
begin
  select r.* into v_run from duragraph.runs r where r.shard = v_shard and r.run_id = p_task and r.tenant_id = p_tenant and not r.temporary and r.kind = 'run';
  if not found then
    raise exception using
      errcode = 'DG404',
      message = 'Task not found: ' || p_task || '.',
      hint = 'It may have been deleted.',
      detail = '{"code":"task_not_found","field":"id"}';
  end if;
  -- What answers its questions are further runs of the same task.
  select r.* into v_last from duragraph.runs r
  where r.shard = v_shard and r.tenant_id = p_tenant and r.thread_id = v_run.thread_id and not r.temporary
    and r.run_id > p_task and r.metadata @> jsonb_build_object('a2a_task_id', p_task)
  order by r.run_id desc
  limit 1;
  if not found then
    v_last := v_run;
  end if;
  return json_build_object(
    'task_id', p_task,
    'context_id', v_run.thread_id,
    'assistant_id', v_last.assistant_id,
    'run_id', v_last.run_id,
    'updated_at', duragraph.iso(coalesce(v_last.ended_at, v_last.started_at, v_last.created_at)),
    'run', duragraph.run_output(p_tenant, v_last.run_id)
  );
end
$$;
comment on function duragraph.find_task(integer, uuid) is
  'A run as a task of A2A: {task_id: its own, context_id: the thread, run_id: the last run that went on with it, assistant_id, updated_at, run: as run_output()}; 404 without it.';
