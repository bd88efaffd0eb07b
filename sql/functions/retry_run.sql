create or replace function duragraph.retry_run(p_run uuid) returns text
language plpgsql as $$
declare
  v_shard smallint := duragraph.shard_of(p_run);
  v_run duragraph.runs;
begin
  select r.* into v_run from duragraph.runs r where r.shard = v_shard and r.run_id = p_run for update;
  if not found then
    return format('There is no run %s.', p_run);
  elsif v_run.status not in ('error', 'timeout', 'interrupted') then
    return case v_run.status when 'success' then format('Run %s succeeded; there is nothing to retry.', p_run) else duragraph.why_not_running(p_run) end;
  end if;
  if not v_run.temporary then
    insert into duragraph.slots (shard, tenant_id, thread_id, active_run_id) values (v_shard, v_run.tenant_id, v_run.thread_id, p_run)
      on conflict (shard, tenant_id, thread_id) do nothing;
    if not found then
      return format('Thread %s is busy; retry run %s when its other runs have ended.', v_run.thread_id, p_run);
    end if;
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
