create or replace function duragraph.delete_thread(p_tenant integer, p_thread uuid)
returns json
language plpgsql
as $$
declare
  v_shard smallint := duragraph.shard_of(p_thread);
  v_ended json;
begin
  perform duragraph.find_thread(p_tenant, p_thread);
  -- Before the slot is taken, as whoever fires a cron holds it before the slot; and again below, for one made meanwhile.
  delete from duragraph.crons c where c.tenant_id = p_tenant and c.thread_id = p_thread;
  v_ended := duragraph.take_thread(p_tenant, p_thread);
  -- Before what belongs to them, as delete_run() has them.
  perform 1 from duragraph.runs r
  where r.shard = v_shard and r.tenant_id = p_tenant and r.thread_id = p_thread and not r.temporary
  order by r.run_id
  for update;
  delete from duragraph.idempotency_keys k
  using duragraph.runs r
  where r.shard = v_shard and r.tenant_id = p_tenant and r.thread_id = p_thread and k.tenant_id = p_tenant and k.run_id = r.run_id;
  delete from duragraph.events e
  using duragraph.runs r
  where r.shard = v_shard and r.tenant_id = p_tenant and r.thread_id = p_thread and not r.temporary
    and e.shard = v_shard and e.run_id = r.run_id;
  -- What is still owed is told.
  delete from duragraph.webhook_deliveries d
  using duragraph.runs r
  where r.shard = v_shard and r.tenant_id = p_tenant and r.thread_id = p_thread and not r.temporary
    and d.shard = v_shard and d.run_id = r.run_id and d.status <> 'pending';
  delete from duragraph.steps s where s.shard = v_shard and s.tenant_id = p_tenant and s.thread_id = p_thread;
  delete from duragraph.checkpoint_writes w where w.shard = v_shard and w.tenant_id = p_tenant and w.thread_id = p_thread;
  delete from duragraph.interrupts i where i.shard = v_shard and i.tenant_id = p_tenant and i.thread_id = p_thread;
  delete from duragraph.channel_values v where v.shard = v_shard and v.tenant_id = p_tenant and v.thread_id = p_thread;
  delete from duragraph.checkpoints c where c.shard = v_shard and c.tenant_id = p_tenant and c.thread_id = p_thread;
  delete from duragraph.state_updates u where u.shard = v_shard and u.tenant_id = p_tenant and u.thread_id = p_thread;
  delete from duragraph.slots s where s.shard = v_shard and s.tenant_id = p_tenant and s.thread_id = p_thread;
  delete from duragraph.runs r
  where r.shard = v_shard and r.tenant_id = p_tenant and r.thread_id = p_thread and not r.temporary;
  delete from duragraph.threads t where t.shard = v_shard and t.tenant_id = p_tenant and t.thread_id = p_thread;
  if not found then
    -- Another session deleted it meanwhile.
    perform duragraph.find_thread(p_tenant, p_thread);
  end if;
  delete from duragraph.crons c where c.tenant_id = p_tenant and c.thread_id = p_thread;
  return json_build_object('runs', v_ended);
end
$$;
comment on function duragraph.delete_thread(integer, uuid) is
  'Ends the thread''s runs, then deletes it with its crons, runs, events, checkpoints, steps, questions and what webhooks were told.
Gives {runs: those it ended, with the worker_key and token of their leases}.';
