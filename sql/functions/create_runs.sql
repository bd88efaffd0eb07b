create or replace function duragraph.create_runs(p_tenant integer, p_requests json) returns json
language plpgsql
set enable_seqscan = off set enable_bitmapscan = off set jit = off as $$
declare
  v_plain boolean;
  v_keyed boolean;
  v_alone boolean;
  v_made json;
  v_new duragraph.new_run[];
begin
  -- Stateless runs that may start at once, the most frequent kind, are written by the statement that resolves them.
  with a as materialized (
    select r.*, duragraph.make_id(r.shard) as run_id, coalesce(r.thread_id, duragraph.make_id(r.shard)) as on_thread, duragraph.queue_ord(r.priority) as ord
    from (
      select r.*, coalesce(duragraph.shard_of(r.thread_id), floor(random() * 4096)::smallint) as shard
      from duragraph.resolve_runs(p_tenant, p_requests) r offset 0) r),
  b as materialized (
    select bool_and(a.temporary and not a.keyed and a.due_at is null and a.assistant_id is not null) as plain, bool_and(a.brief) as brief,
      bool_or(a.keyed) as keyed, bool_or(not a.temporary and a.strategy <> 'enqueue') as alone
    from a),
  q as (
    insert into duragraph.ready (graph_key, ord, shard, run_id, tenant_id)
      select a.graph_key, a.ord, a.shard, a.run_id, p_tenant from a where (select b.plain from b)),
  i as (
    insert into duragraph.runs (shard, run_id, tenant_id, thread_id, assistant_id, graph_key, multitask_strategy, temporary, resumable,
        ord, max_attempts, start_checkpoint_id, metadata, kwargs, created_at)
      select a.shard, a.run_id, p_tenant, a.on_thread, a.assistant_id, a.graph_key, a.strategy, true, a.resumable,
        a.ord, a.max_attempts, a.start_checkpoint_id, a.metadata, a.kwargs, duragraph.current_time()
      from a where (select b.plain from b)),
  h as (
    insert into duragraph.webhooks (shard, run_id, url)
      select a.shard, a.run_id, a.kwargs ->> 'webhook' from a
      -- Read as text first: what nobody asks for costs nobody a parse.
      where (select b.plain from b) and strpos(a.kwargs::text, ',"webhook":') > 0 and a.kwargs ->> 'webhook' is not null)
  select b.plain, b.keyed, b.alone,
      case when b.plain and b.brief then (select json_agg(json_build_object('run_id', a.run_id, 'thread_id', a.on_thread) order by a.n) from a) end,
      case when not (b.plain and b.brief) then array(
        select (a.shard, a.run_id, a.on_thread, a.assistant_id, a.graph_id, a.graph_key, a.ord, a.strategy, a.temporary, a.resumable,
          a.max_attempts, a.start_checkpoint_id, a.metadata, a.kwargs, a.due_at, a.brief)::duragraph.new_run from a order by a.n) end
    into v_plain, v_keyed, v_alone, v_made, v_new from b;
  if v_made is not null then
    return v_made;
  elsif v_keyed then
    return duragraph.create_keyed_runs(p_tenant, p_requests, duragraph.runs_of_keys(p_tenant, p_requests));
  elsif v_alone and exists (
      select 1 from unnest(v_new) u where not u.temporary group by u.thread_id having count(*) > 1 and bool_or(u.strategy <> 'enqueue')) then
    return duragraph.create_keyed_runs(p_tenant, p_requests, array_fill(null::json, array[cardinality(v_new)]));
  elsif not v_plain then
    perform duragraph.queue_runs(p_tenant, p_requests, v_new);
  end if;
  return (
    select json_agg(case when u.brief then json_build_object('run_id', u.run_id, 'thread_id', u.thread_id)
        else duragraph.run_json(r.run, 'pending') end order by u.n)
    from rows from (unnest(v_new)) with ordinality as u(shard, run_id, thread_id, assistant_id, graph_id, graph_key, ord, strategy, temporary,
        resumable, max_attempts, start_checkpoint_id, metadata, kwargs, due_at, brief, n)
    left join lateral (
      select r as run from duragraph.runs r where not u.brief and r.shard = u.shard and r.run_id = u.run_id offset 0) r on true);
end $$;
comment on function duragraph.create_runs(integer, json) is
  'Creates runs: [{thread_id (null: stateless), idempotency_key, request_id, brief, body: the client''s run body}] -> the runs, in order; brief: only their ids. All or nothing.';
