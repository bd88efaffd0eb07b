create or replace function duragraph.create_runs(p_tenant integer, p_requests json) returns json
language plpgsql
set enable_seqscan = off set jit = off as $$
declare
  v_old json[] := duragraph.runs_of_keys(p_tenant, p_requests);
  v_new duragraph.new_run[];
  v_active uuid[] := '{}';
  v_threaded boolean;
  v_delayed boolean;
  v_lacking boolean;
  v_alone boolean;
  v_brief boolean[];
  v_made json;
begin
  if v_old is not null then
    return duragraph.create_keyed_runs(p_tenant, p_requests, v_old);
  end if;
  v_new := duragraph.resolve_runs(p_tenant, p_requests);
  select bool_or(not u.temporary), bool_or(u.due_at is not null), bool_or(u.assistant_id is null), array_agg(u.brief),
      bool_or(not u.temporary and u.strategy <> 'enqueue')
    into v_threaded, v_delayed, v_lacking, v_brief, v_alone from unnest(v_new) u;
  if v_alone and cardinality(v_new) > 1 and exists (
      select 1 from unnest(v_new) u where not u.temporary group by u.thread_id having count(*) > 1 and bool_or(u.strategy <> 'enqueue')) then
    return duragraph.create_keyed_runs(p_tenant, p_requests, array_fill(null::json, array[cardinality(v_new)]));
  end if;
  if v_threaded or v_lacking then
    perform duragraph.check_new_runs(p_tenant, p_requests, v_new);
  end if;
  if v_threaded then
    v_active := duragraph.enter_threads(p_tenant, v_new);
    -- Read as text: what nobody asks for costs nobody a parse.
    if strpos(p_requests::text, '"strict_resume"') > 0 then
      perform duragraph.check_strict_resumes(p_tenant, p_requests, v_new);
    end if;
    insert into duragraph.waiting (shard, tenant_id, thread_id, ord, run_id, graph_key)
      select u.shard, p_tenant, u.thread_id, u.ord, u.run_id, u.graph_key from unnest(v_new) u
      where u.due_at is null and not u.temporary and not u.run_id = any(v_active);
  end if;
  if v_delayed then
    insert into duragraph.scheduled (shard, run_id, tenant_id, thread_id, graph_key, ord, holds_slot, due_at)
      select u.shard, u.run_id, p_tenant, u.thread_id, u.graph_key, u.ord, u.temporary, u.due_at from unnest(v_new) u where u.due_at is not null;
  end if;
  if exists (select 1 from unnest(v_new) u where strpos(u.kwargs::text, ',"webhook":') > 0) then
    insert into duragraph.webhooks (shard, run_id, url)
      select u.shard, u.run_id, u.kwargs ->> 'webhook' from unnest(v_new) u where u.kwargs ->> 'webhook' is not null;
  end if;
  with q as (
    insert into duragraph.ready (graph_key, ord, shard, run_id, tenant_id)
      select u.graph_key, u.ord, u.shard, u.run_id, p_tenant from unnest(v_new) u
      where u.due_at is null and (u.temporary or u.run_id = any(v_active))),
  i as (
    insert into duragraph.runs (shard, run_id, tenant_id, thread_id, assistant_id, graph_key, multitask_strategy, temporary, resumable,
        ord, max_attempts, start_checkpoint_id, metadata, kwargs, created_at)
      select u.shard, u.run_id, p_tenant, u.thread_id, u.assistant_id, u.graph_key, u.strategy, u.temporary, u.resumable,
        u.ord, u.max_attempts, u.start_checkpoint_id, u.metadata, u.kwargs, coalesce(u.due_at, duragraph.current_time())
      from unnest(v_new) u
    returning runs)
  select json_agg(case when v_brief[i.n] then json_build_object('run_id', (i.runs).run_id, 'thread_id', (i.runs).thread_id)
      else duragraph.run_json(i.runs, 'pending') end order by i.n) into v_made
    from (select i.runs, row_number() over () as n from i) i;
  return v_made;
end $$;
comment on function duragraph.create_runs(integer, json) is
  'Creates runs: [{thread_id (null: stateless), idempotency_key, request_id, brief, body: the client''s run body}] -> the runs, in order; brief: only their ids. All or nothing.';
