create or replace function duragraph.erase_runs(p_tenant integer, p_thread uuid, p_runs uuid[]) returns void
language plpgsql
set enable_seqscan = off set jit = off as $$
declare
  v_shard smallint := duragraph.shard_of(p_thread);
  v_head uuid;
  v_last boolean;
begin
  -- One at a time for each thread: what stays is looked up before it is written.
  perform 1 from duragraph.threads t where t.shard = v_shard and t.tenant_id = p_tenant and t.thread_id = p_thread for update;
  -- The thread steps back to the newest checkpoint of its line that stays.
  with recursive line as (
    select c.checkpoint_id, c.parent_checkpoint_id, c.run_id, 1 as n from duragraph.threads t, duragraph.checkpoints c
      where t.shard = v_shard and t.tenant_id = p_tenant and t.thread_id = p_thread and c.shard = t.shard and c.tenant_id = t.tenant_id
        and c.thread_id = t.thread_id and c.checkpoint_ns = '' and c.checkpoint_id = t.checkpoint_id
    union all
    select c.checkpoint_id, c.parent_checkpoint_id, c.run_id, line.n + 1 from line, duragraph.checkpoints c
      where line.run_id = any(p_runs) and c.shard = v_shard and c.tenant_id = p_tenant and c.thread_id = p_thread and c.checkpoint_ns = ''
        and c.checkpoint_id = line.parent_checkpoint_id)
  select line.checkpoint_id into v_head from line where line.run_id is null or not line.run_id = any(p_runs) order by line.n limit 1;
  -- The status stays when it tells of a later run than these.
  v_last := not exists (select 1 from duragraph.runs r where r.shard = v_shard and r.tenant_id = p_tenant and r.thread_id = p_thread
    and not r.temporary and not r.run_id = any(p_runs) and r.ended_at > (
      select max(x.ended_at) from duragraph.runs x where x.shard = v_shard and x.run_id = any(p_runs)));
  update duragraph.threads t set checkpoint_id = v_head, values_checkpoint_id = v_head, error = case when not v_last then t.error end,
      status = case when not v_last then t.status else coalesce((
        select case when cardinality(c.next) > 0 then 'interrupted' else 'idle' end from duragraph.checkpoints c
        where c.shard = v_shard and c.tenant_id = p_tenant and c.thread_id = p_thread and c.checkpoint_ns = '' and c.checkpoint_id = v_head), 'idle') end
    where t.shard = v_shard and t.tenant_id = p_tenant and t.thread_id = p_thread;
  perform duragraph.forget_checkpoints(v_shard, p_tenant, p_thread, p_runs);
  delete from duragraph.steps s where s.shard = v_shard and s.tenant_id = p_tenant and s.thread_id = p_thread and s.run_id = any(p_runs);
  delete from duragraph.checkpoint_writes w where w.shard = v_shard and w.tenant_id = p_tenant and w.thread_id = p_thread and w.run_id = any(p_runs);
  delete from duragraph.interrupts i where i.shard = v_shard and i.tenant_id = p_tenant and i.thread_id = p_thread and i.run_id = any(p_runs);
  update duragraph.interrupts i set answered = false, answer = null, answered_at = null, answered_run_id = null
    where i.shard = v_shard and i.tenant_id = p_tenant and i.thread_id = p_thread and i.answered_run_id = any(p_runs);
  delete from duragraph.events e where e.shard = v_shard and e.run_id = any(p_runs);
  -- What is still owed is told.
  delete from duragraph.webhook_deliveries d where d.shard = v_shard and d.run_id = any(p_runs) and d.status <> 'pending';
  delete from duragraph.runs r where r.shard = v_shard and r.run_id = any(p_runs) and r.tenant_id = p_tenant;
end $$;
comment on function duragraph.erase_runs(integer, uuid, uuid[]) is
  'Removes ended runs with their checkpoints, ledger, questions, events and what webhooks were told; answers they gave are taken back. The thread returns to the state before them.';
