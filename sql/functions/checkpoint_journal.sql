create or replace function duragraph.checkpoint_journal(p_shard smallint, p_tenant integer, p_thread uuid, p_checkpoint uuid) returns json
language sql stable
set enable_seqscan = off set jit = off as $$
  select coalesce(json_agg(json_build_object('task_id', s.task_id, 'key', s.step_key, 'kind', s.kind, 'name', s.name, 'result', s.result)
    order by s.ended_at), '[]')
  from duragraph.steps s
  where s.shard = p_shard and s.tenant_id = p_tenant and s.thread_id = p_thread and s.checkpoint_id = p_checkpoint
$$;
comment on function duragraph.checkpoint_journal(smallint, integer, uuid, uuid) is 'What was already completed from a checkpoint on: a worker takes these results instead of running them again.';
