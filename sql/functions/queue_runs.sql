create or replace function duragraph.queue_runs(p_tenant integer, p_requests json, p_new duragraph.new_run[]) returns void
language plpgsql
set enable_seqscan = off set jit = off as $$
declare
  v_active uuid[] := '{}';
  v_threaded boolean;
  v_delayed boolean;
  v_lacking boolean;
begin
  select bool_or(not u.temporary), bool_or(u.due_at is not null), bool_or(u.assistant_id is null)
    into v_threaded, v_delayed, v_lacking from unnest(p_new) u;
  if v_threaded or v_lacking then
    perform duragraph.check_new_runs(p_tenant, p_requests, p_new);
  end if;
  if v_threaded then
    v_active := duragraph.enter_threads(p_tenant, p_new);
    -- Read as text: what nobody asks for costs nobody a parse. A key may be spelt with escapes.
    if strpos(p_requests::text, '"strict_resume"') > 0 or strpos(p_requests::text, '\u') > 0 then
      perform duragraph.check_strict_resumes(p_tenant, p_requests, p_new);
    end if;
    insert into duragraph.waiting (shard, tenant_id, thread_id, ord, run_id, graph_key)
      select u.shard, p_tenant, u.thread_id, u.ord, u.run_id, u.graph_key from unnest(p_new) u
      where u.due_at is null and not u.temporary and not u.run_id = any(v_active);
  end if;
  if v_delayed then
    insert into duragraph.scheduled (shard, run_id, tenant_id, thread_id, graph_key, ord, holds_slot, due_at)
      select u.shard, u.run_id, p_tenant, u.thread_id, u.graph_key, u.ord, u.temporary, u.due_at from unnest(p_new) u where u.due_at is not null;
  end if;
  if exists (select 1 from unnest(p_new) u where strpos(u.kwargs::text, ',"webhook":') > 0) then
    insert into duragraph.webhooks (shard, run_id, url)
      select u.shard, u.run_id, u.kwargs ->> 'webhook' from unnest(p_new) u where u.kwargs ->> 'webhook' is not null;
  end if;
  with q as (
    insert into duragraph.ready (graph_key, ord, shard, run_id, tenant_id)
      select u.graph_key, u.ord, u.shard, u.run_id, p_tenant from unnest(p_new) u
      where u.due_at is null and (u.temporary or u.run_id = any(v_active)))
  insert into duragraph.runs (shard, run_id, tenant_id, thread_id, assistant_id, graph_key, multitask_strategy, temporary, resumable,
      ord, max_attempts, start_checkpoint_id, metadata, kwargs, created_at)
    select u.shard, u.run_id, p_tenant, u.thread_id, u.assistant_id, u.graph_key, u.strategy, u.temporary, u.resumable,
      u.ord, u.max_attempts, u.start_checkpoint_id, u.metadata, u.kwargs, coalesce(u.due_at, duragraph.current_time())
    from unnest(p_new) u;
end $$;
comment on function duragraph.queue_runs(integer, json, duragraph.new_run[]) is
  'Second half of create_runs() for runs that need more than a place in ready: their thread''s line, a time, or a refusal.';
