create or replace function duragraph.erase_runs(p_tenant integer, p_thread uuid, p_runs uuid[]) returns void
language plpgsql
set enable_seqscan = off set jit = off as $$
declare
  v_shard smallint := duragraph.shard_of(p_thread);
  v_head uuid;
begin
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
  update duragraph.threads t set checkpoint_id = v_head, values_checkpoint_id = v_head,
      status = case when t.status = 'error' then 'idle' else coalesce((
        select case when cardinality(c.next) > 0 then 'interrupted' else 'idle' end from duragraph.checkpoints c
        where c.shard = v_shard and c.tenant_id = p_tenant and c.thread_id = p_thread and c.checkpoint_ns = '' and c.checkpoint_id = v_head), 'idle') end
    where t.shard = v_shard and t.tenant_id = p_tenant and t.thread_id = p_thread;
  with c as (
    delete from duragraph.checkpoints c where c.shard = v_shard and c.tenant_id = p_tenant and c.thread_id = p_thread and c.run_id = any(p_runs)
    returning c.checkpoint_ns, c.checkpoint_id)
  delete from duragraph.channel_values v using c where v.shard = v_shard and v.tenant_id = p_tenant and v.thread_id = p_thread
    and v.checkpoint_ns = c.checkpoint_ns and v.checkpoint_id = c.checkpoint_id;
  delete from duragraph.steps s where s.shard = v_shard and s.tenant_id = p_tenant and s.thread_id = p_thread and s.run_id = any(p_runs);
  delete from duragraph.interrupts i where i.shard = v_shard and i.tenant_id = p_tenant and i.thread_id = p_thread and i.run_id = any(p_runs);
  update duragraph.interrupts i set answered = false, answer = null, answered_at = null, answered_run_id = null
    where i.shard = v_shard and i.tenant_id = p_tenant and i.thread_id = p_thread and i.answered_run_id = any(p_runs);
  delete from duragraph.events e where e.shard = v_shard and e.run_id = any(p_runs);
  delete from duragraph.idempotency_keys k where k.tenant_id = p_tenant and k.run_id = any(p_runs);
  delete from duragraph.runs r where r.shard = v_shard and r.run_id = any(p_runs) and r.tenant_id = p_tenant;
end $$;
comment on function duragraph.erase_runs(integer, uuid, uuid[]) is
  'Removes ended runs with their checkpoints, ledger, questions and events; answers they gave are taken back. The thread returns to the state before them.';
