create or replace function duragraph.forget_checkpoints(p_shard smallint, p_tenant integer, p_thread uuid, p_runs uuid[]) returns void
language sql
set enable_seqscan = off set jit = off as $$
  select duragraph.remove_checkpoints(p_shard, p_tenant, p_thread, array(
    select c.checkpoint_id from duragraph.checkpoints c
    where c.shard = p_shard and c.tenant_id = p_tenant and c.thread_id = p_thread and c.run_id = any(p_runs)))
$$;
comment on function duragraph.forget_checkpoints(smallint, integer, uuid, uuid[]) is 'Removes the checkpoints of runs: remove_checkpoints() of what they made.';
