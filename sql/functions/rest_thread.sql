create or replace function duragraph.rest_thread(p_thread duragraph.threads, p_checkpoint uuid)
returns duragraph.threads
language sql
as $$
  update duragraph.threads t
  set
    checkpoint_id = p_checkpoint,
    values_checkpoint_id = p_checkpoint,
    status = case when c.next = '{}' then 'idle' else 'interrupted' end,
    error = null,
    updated_at = duragraph.current_time(),
    state_updated_at = duragraph.current_time()
  from duragraph.checkpoints c
  where t.shard = p_thread.shard and t.tenant_id = p_thread.tenant_id and t.thread_id = p_thread.thread_id
    and c.shard = t.shard and c.tenant_id = t.tenant_id and c.thread_id = t.thread_id and c.checkpoint_ns = ''
    and c.checkpoint_id = p_checkpoint
  returning t.*
$$;
comment on function duragraph.rest_thread(duragraph.threads, uuid) is
  'Makes a checkpoint the head of a thread on which nothing runs: interrupted when something is next, else idle.';
