create or replace function duragraph.checkpoint_document(p_shard smallint, p_tenant integer, p_thread uuid, p_checkpoint uuid) returns json
language sql stable
set enable_seqscan = off set jit = off as $$
  select json_build_object(
    'checkpoint_id', c.checkpoint_id, 'parent_checkpoint_id', c.parent_checkpoint_id, 'step', c.step, 'source', c.source,
    'values', case when c.saved is null then duragraph.checkpoint_values(p_shard, p_tenant, p_thread, '', p_checkpoint) end,
    'next', c.next, 'tasks', duragraph.checkpoint_tasks(p_shard, p_tenant, p_thread, p_checkpoint, c.tasks),
    'metadata', c.metadata, 'saved', case when c.saved is not null then duragraph.saved_checkpoint(c) end)
  from duragraph.checkpoints c
  where c.shard = p_shard and c.tenant_id = p_tenant and c.thread_id = p_thread and c.checkpoint_ns = ''
    and c.checkpoint_id = p_checkpoint
$$;
comment on function duragraph.checkpoint_document(smallint, integer, uuid, uuid) is 'A checkpoint as a worker starts from it: with its values, or of a hosted graph as that saved it; null when there is no such checkpoint.';
