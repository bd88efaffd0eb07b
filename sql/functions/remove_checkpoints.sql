create or replace function duragraph.remove_checkpoints(p_shard smallint, p_tenant integer, p_thread uuid, p_gone uuid[]) returns void
language plpgsql
set enable_seqscan = off set jit = off as $$
declare
  v_left uuid[];
  v_shared boolean;
begin
  -- What stays and stood on one that goes now stands on its nearest ancestor that stays.
  with recursive up as (
    select c.checkpoint_ns, c.checkpoint_id, c.parent_checkpoint_id as parent from duragraph.checkpoints c
      where c.shard = p_shard and c.tenant_id = p_tenant and c.thread_id = p_thread and c.parent_checkpoint_id = any(p_gone)
        and not c.checkpoint_id = any(p_gone)
    union all
    select up.checkpoint_ns, up.checkpoint_id, p.parent_checkpoint_id from up, duragraph.checkpoints p
      where p.shard = p_shard and p.tenant_id = p_tenant and p.thread_id = p_thread and p.checkpoint_ns = up.checkpoint_ns
        and p.checkpoint_id = up.parent and up.parent = any(p_gone))
  update duragraph.checkpoints c set parent_checkpoint_id = up.parent from up
    where c.shard = p_shard and c.tenant_id = p_tenant and c.thread_id = p_thread and c.checkpoint_ns = up.checkpoint_ns
      and c.checkpoint_id = up.checkpoint_id and (up.parent is null or not up.parent = any(p_gone));
  v_shared := found;
  delete from duragraph.checkpoints c where c.shard = p_shard and c.tenant_id = p_tenant and c.thread_id = p_thread and c.checkpoint_id = any(p_gone);
  -- Content is stored once: what stays may still show values that these checkpoints wrote, or some before them, or lists that begin there.
  v_left := array(select distinct v.checkpoint_id from duragraph.channel_values v
    where v.shard = p_shard and v.tenant_id = p_tenant and v.thread_id = p_thread and not exists (
      select 1 from duragraph.checkpoints c where c.shard = p_shard and c.tenant_id = p_tenant and c.thread_id = p_thread
        and c.checkpoint_ns = v.checkpoint_ns and c.checkpoint_id = v.checkpoint_id));
  v_shared := v_shared or not v_left <@ p_gone;
  with recursive kept as (
    select c.checkpoint_ns, k.key as channel, k.value::uuid as checkpoint_id from duragraph.checkpoints c, jsonb_each_text(c.channels) k
      where v_shared and c.shard = p_shard and c.tenant_id = p_tenant and c.thread_id = p_thread
    union
    select v.checkpoint_ns, v.channel, v.base_checkpoint_id from kept, duragraph.channel_values v
      where v.shard = p_shard and v.tenant_id = p_tenant and v.thread_id = p_thread and v.checkpoint_ns = kept.checkpoint_ns
        and v.channel = kept.channel and v.checkpoint_id = kept.checkpoint_id and v.base_checkpoint_id is not null)
  delete from duragraph.channel_values v where v.shard = p_shard and v.tenant_id = p_tenant and v.thread_id = p_thread
    and v.checkpoint_id = any(v_left) and not exists (select 1 from kept
      where kept.checkpoint_ns = v.checkpoint_ns and kept.channel = v.channel and kept.checkpoint_id = v.checkpoint_id);
end $$;
comment on function duragraph.remove_checkpoints(smallint, integer, uuid, uuid[]) is
  'Removes checkpoints, and of their content what no other checkpoint of the thread shows. Those that stood on them move up.';
