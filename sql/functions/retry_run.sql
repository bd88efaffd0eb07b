create or replace function duragraph.retry_run(p_run uuid) returns text
language plpgsql as $$
declare
  v_shard smallint := duragraph.shard_of(p_run);
  v_run duragraph.runs;
  v_held boolean := false;
  v_refusal text;
begin
  select r.* into v_run from duragraph.runs r where r.shard = v_shard and r.run_id = p_run;
  -- The slot before the run, as everybody takes them; what was looked up without them is looked up again with both.
  if v_run.status in ('error', 'timeout', 'interrupted') and not v_run.temporary then
    insert into duragraph.slots (shard, tenant_id, thread_id, active_run_id) values (v_shard, v_run.tenant_id, v_run.thread_id, p_run)
      on conflict (shard, tenant_id, thread_id) do nothing;
    v_held := found;
  end if;
  select r.* into v_run from duragraph.runs r where r.shard = v_shard and r.run_id = p_run for update;
  v_refusal := case
    when not found then format('There is no run %s.', p_run)
    when v_run.status = 'success' then format('Run %s succeeded; there is nothing to retry.', p_run)
    when v_run.status = 'pending' then duragraph.why_not_running(p_run)
    when not (v_held or v_run.temporary) then format('Thread %s is busy; retry run %s when its other runs have ended.', v_run.thread_id, p_run) end;
  if v_refusal is not null then
    delete from duragraph.slots s where v_held and s.shard = v_shard and s.active_run_id = p_run;
    return v_refusal;
  end if;
  if v_held then
    update duragraph.threads t set status = 'idle', error = null where t.shard = v_shard and t.tenant_id = v_run.tenant_id and t.thread_id = v_run.thread_id;
  end if;
  update duragraph.runs r set status = 'pending', ended_at = null, error = null, output = null, token = null, reason = 'retried by an operator',
      max_attempts = greatest(r.max_attempts, r.attempt + 1), ord = duragraph.queue_ord()
    where r.shard = v_shard and r.run_id = p_run returning r.* into v_run;
  insert into duragraph.ready (graph_key, ord, shard, run_id, tenant_id, attempt, last_seq)
    values (v_run.graph_key, v_run.ord, v_shard, p_run, v_run.tenant_id, v_run.attempt, v_run.last_seq);
  insert into duragraph.webhooks (shard, run_id, url)
    select v_shard, p_run, v_run.kwargs ->> 'webhook' where v_run.kwargs ->> 'webhook' is not null;
  perform duragraph.notify_runs(array[p_run], true);
  return format('Run %s is queued again: attempt %s, from its last checkpoint.', p_run, v_run.attempt + 1);
end $$;
comment on function duragraph.retry_run(uuid) is 'Run a failed or cancelled run once more, from its last checkpoint: finished steps are not repeated. Says what was done.';
