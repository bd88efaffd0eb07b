create or replace function duragraph.keep_latest(p_tenant integer, p_thread uuid)
returns integer
language plpgsql
set enable_seqscan = off set jit = off
as $$
declare
  v_thread duragraph.threads;
  v_head duragraph.checkpoints;
  v_gone uuid[];
begin
  perform 1 from duragraph.runs r
  where r.shard = duragraph.shard_of(p_thread) and r.tenant_id = p_tenant and r.thread_id = p_thread and not r.temporary
  order by r.run_id
  for update;
  select t.* into v_thread from duragraph.threads t
  where t.shard = duragraph.shard_of(p_thread) and t.tenant_id = p_tenant and t.thread_id = p_thread
  for update;
  -- A hosted graph's delta channels are rebuilt from the writes on the way to the head: without them they would be empty.
  if exists (
    select from duragraph.checkpoints c
    where c.shard = v_thread.shard and c.tenant_id = p_tenant and c.thread_id = p_thread
      and c.metadata ? 'counters_since_delta_snapshot'
  ) then
    return 0;
  end if;
  select c.* into v_head from duragraph.checkpoints c
  where c.shard = v_thread.shard and c.tenant_id = p_tenant and c.thread_id = p_thread and c.checkpoint_ns = ''
    and c.checkpoint_id = v_thread.checkpoint_id;
  -- The state of a subgraph that waits inside one of the head's tasks is part of the latest state; so is the latest one of a
  -- hosted subgraph that remembers over runs: its namespace names no task.
  v_gone := array(
    select c.checkpoint_id from duragraph.checkpoints c
    where c.shard = v_thread.shard and c.tenant_id = p_tenant and c.thread_id = p_thread
      and c.checkpoint_id is distinct from v_thread.checkpoint_id
      and c.checkpoint_id is distinct from v_thread.values_checkpoint_id
      and not exists (
        select from json_array_elements(v_head.tasks) t (task)
        where split_part(c.checkpoint_ns, '|', 1) = (t.task ->> 'name') || ':' || (t.task ->> 'id')
      )
      and (c.checkpoint_ns = '' or strpos(c.checkpoint_ns, ':') > 0 or exists (
        select from duragraph.checkpoints newer
        where newer.shard = c.shard and newer.tenant_id = p_tenant and newer.thread_id = p_thread
          and newer.checkpoint_ns = c.checkpoint_ns and newer.checkpoint_id > c.checkpoint_id
      ))
  );
  if v_gone <> '{}' then
    perform duragraph.remove_checkpoints(v_thread.shard, p_tenant, p_thread, v_gone);
    delete from duragraph.steps s
    where s.shard = v_thread.shard and s.tenant_id = p_tenant and s.thread_id = p_thread and s.checkpoint_id = any(v_gone);
    delete from duragraph.checkpoint_writes w
    where w.shard = v_thread.shard and w.tenant_id = p_tenant and w.thread_id = p_thread and w.checkpoint_id = any(v_gone);
    delete from duragraph.interrupts i
    where i.shard = v_thread.shard and i.tenant_id = p_tenant and i.thread_id = p_thread and i.checkpoint_id = any(v_gone);
    delete from duragraph.state_updates u
    where u.shard = v_thread.shard and u.tenant_id = p_tenant and u.thread_id = p_thread and u.checkpoint_id = any(v_gone);
    -- A run that is retried starts from what is left.
    update duragraph.runs r
    set
      checkpoint_id = case when not r.checkpoint_id = any(v_gone) then r.checkpoint_id end,
      start_checkpoint_id = case when not r.start_checkpoint_id = any(v_gone) then r.start_checkpoint_id end
    where r.shard = v_thread.shard and r.tenant_id = p_tenant and r.thread_id = p_thread and not r.temporary
      and (r.checkpoint_id = any(v_gone) or r.start_checkpoint_id = any(v_gone));
  end if;
  return cardinality(v_gone);
end
$$;
comment on function duragraph.keep_latest(integer, uuid) is
  'Removes all checkpoints of a thread but those of its latest state, with their ledger, questions and frames of the thread''s stream; how many. Runs and events stay. A thread with delta channels keeps all. The caller holds its slot.';
