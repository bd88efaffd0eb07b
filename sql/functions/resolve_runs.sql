create or replace function duragraph.resolve_runs(p_tenant integer, p_requests json) returns table (
  n bigint, keyed boolean, brief boolean, thread_id uuid, temporary boolean, assistant_id uuid, graph_id text, graph_key integer,
  priority integer, strategy text, resumable boolean, max_attempts smallint, start_checkpoint_id uuid, metadata jsonb, kwargs json,
  due_at timestamptz)
language sql stable as $$
  select q.n, q.idempotency_key is not null, coalesce(q.brief, false), q.thread_id, q.temporary, s.assistant_id, s.graph_id, s.graph_key,
    coalesce((q.body).priority, 0), coalesce((q.body).multitask_strategy, 'enqueue'), coalesce((q.body).stream_resumable, false),
    coalesce((q.body).max_attempts, 3::smallint), coalesce((q.body).checkpoint_id, (q.body).checkpoint ->> 'checkpoint_id')::uuid,
    case when q.temporary and (q.body).metadata is null and (q.body).config is null then s.labels
      else s.labels || coalesce((
          select t.metadata from duragraph.threads t
          where t.shard = duragraph.shard_of(q.thread_id) and t.tenant_id = p_tenant and t.thread_id = q.thread_id), '{}')
        || coalesce(nullif((q.body).config -> 'metadata', 'null'), '{}') || coalesce((q.body).metadata, '{}')
        || jsonb_build_object('graph_id', s.graph_id, 'assistant_id', s.assistant_id) end,
    case when s.assistant_id is not null then duragraph.new_kwargs(q.body,
      duragraph.new_config(s.config, s.context, (q.body).config,
        coalesce((q.body).context, nullif((q.body).config -> 'configurable', 'null')), q.request_id),
      s.context || coalesce((q.body).context, nullif((q.body).config -> 'configurable', 'null'), '{}')) end,
    case when (q.body).after_seconds > 0 then duragraph.current_time() + make_interval(secs => (q.body).after_seconds) end
  from (
    select r.*, r.thread_id is null and (r.body).on_completion is distinct from 'keep' as temporary, (r.body).assistant_id as asked
    from rows from (json_to_recordset(p_requests)
        as (thread_id uuid, idempotency_key text, request_id text, brief boolean, body duragraph.run_request))
      with ordinality as r(thread_id, idempotency_key, request_id, brief, body, n)) q
  left join lateral (
    select s.assistant_id, s.graph_id, s.config, s.context,
      s.metadata || jsonb_build_object('graph_id', s.graph_id, 'assistant_id', s.assistant_id) as labels,
      case when s.graph_id = g.graph_id then g.graph_key
        else (select o.graph_key from duragraph.graphs o where o.tenant_id = p_tenant and o.graph_id = s.graph_id) end as graph_key
    from (select) one
    left join duragraph.graphs g on g.tenant_id = p_tenant and g.graph_id = q.asked
    join duragraph.assistants s on s.tenant_id = p_tenant and s.assistant_id = coalesce(
      case when q.asked ~ '^[0-9a-fA-F]{8}-?([0-9a-fA-F]{4}-?){3}[0-9a-fA-F]{12}$' then q.asked::uuid end, g.assistant_id)
    offset 0) s on s.graph_key is not null
$$;
comment on function duragraph.resolve_runs(integer, json) is
  'First half of create_runs(): finds assistants, merges config, context and metadata. An assistant that was not found is null in the answer. Plain SQL and stable, so that it becomes a part of the statement that asks.';
