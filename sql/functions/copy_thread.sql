create or replace function duragraph.copy_thread(p_tenant integer, p_thread uuid)
returns json
language plpgsql
as $$
declare
  v_now timestamptz := duragraph.current_time();
  v_old duragraph.threads := duragraph.find_thread(p_tenant, p_thread);
  v_id uuid := duragraph.make_id();
  v_shard smallint := duragraph.shard_of(v_id);
  v_new duragraph.threads;
begin
  -- One statement, so that all of it is one moment of a thread that may be running.
  with c as (
    insert into duragraph.checkpoints (
      shard, tenant_id, thread_id, checkpoint_ns, checkpoint_id, parent_checkpoint_id, run_id, step, source, channels, next,
      tasks, metadata, saved, created_at
    )
    select
      v_shard, p_tenant, v_id, c.checkpoint_ns, c.checkpoint_id, c.parent_checkpoint_id, c.run_id, c.step, c.source, c.channels,
      c.next, c.tasks, c.metadata, c.saved, c.created_at
    from duragraph.checkpoints c
    where c.shard = v_old.shard and c.tenant_id = p_tenant and c.thread_id = p_thread
  ),
  v as (
    insert into duragraph.channel_values
      (shard, tenant_id, thread_id, checkpoint_ns, channel, checkpoint_id, base_checkpoint_id, value, saved)
    select v_shard, p_tenant, v_id, v.checkpoint_ns, v.channel, v.checkpoint_id, v.base_checkpoint_id, v.value, v.saved
    from duragraph.channel_values v
    where v.shard = v_old.shard and v.tenant_id = p_tenant and v.thread_id = p_thread
  ),
  w as (
    insert into duragraph.checkpoint_writes
      (shard, tenant_id, thread_id, checkpoint_id, task_id, idx, checkpoint_ns, run_id, task_path, channel, saved)
    select v_shard, p_tenant, v_id, w.checkpoint_id, w.task_id, w.idx, w.checkpoint_ns, w.run_id, w.task_path, w.channel, w.saved
    from duragraph.checkpoint_writes w
    where w.shard = v_old.shard and w.tenant_id = p_tenant and w.thread_id = p_thread
  ),
  s as (
    insert into duragraph.steps (
      shard, tenant_id, thread_id, checkpoint_id, task_id, step_key, run_id, kind, name, attempt, worker_key, started_at,
      ended_at, result, details
    )
    select
      v_shard, p_tenant, v_id, s.checkpoint_id, s.task_id, s.step_key, s.run_id, s.kind, s.name, s.attempt, s.worker_key,
      s.started_at, s.ended_at, s.result, s.details
    from duragraph.steps s
    where s.shard = v_old.shard and s.tenant_id = p_tenant and s.thread_id = p_thread
  ),
  i as (
    insert into duragraph.interrupts (
      shard, tenant_id, thread_id, checkpoint_id, task_id, ordinal, interrupt_id, run_id, node, checkpoint_ns, value,
      response_schema, answer, answered, answered_run_id, raised_at, answered_at
    )
    select
      v_shard, p_tenant, v_id, i.checkpoint_id, i.task_id, i.ordinal, i.interrupt_id, i.run_id, i.node, i.checkpoint_ns, i.value,
      i.response_schema, i.answer, i.answered, i.answered_run_id, i.raised_at, i.answered_at
    from duragraph.interrupts i
    where i.shard = v_old.shard and i.tenant_id = p_tenant and i.thread_id = p_thread
  )
  insert into duragraph.threads as n (
    shard, tenant_id, thread_id, status, checkpoint_id, values_checkpoint_id, metadata, config, error, ttl, expires_at,
    created_at, updated_at, state_updated_at
  )
  select
    v_shard, p_tenant, v_id,
    case when t.status = 'error' then 'error' when h.next <> '{}' then 'interrupted' else 'idle' end,
    h.checkpoint_id, h.checkpoint_id, t.metadata, t.config, t.error, t.ttl, duragraph.expiry_of(t.ttl::jsonb), v_now, v_now, v_now
  from duragraph.threads t
  left join duragraph.checkpoints h
    on h.shard = t.shard and h.tenant_id = t.tenant_id and h.thread_id = t.thread_id and h.checkpoint_ns = ''
    and h.checkpoint_id = duragraph.thread_head(t)
  where t.shard = v_old.shard and t.tenant_id = p_tenant and t.thread_id = p_thread
  returning * into v_new;
  return duragraph.thread_json(v_new);
end
$$;
comment on function duragraph.copy_thread(integer, uuid) is
  'Makes a new thread with the whole state and history of another, but none of its runs.';
