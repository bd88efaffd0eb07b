create or replace function duragraph.resolve_runs(p_tenant integer, p_requests json) returns duragraph.new_run[]
language plpgsql as $$
declare
  v_new duragraph.new_run[];
begin
  with q as materialized (
    select r.n, r.thread_id is null and b.on_completion is distinct from 'keep' as temporary, coalesce(r.thread_id, duragraph.make_id()) as thread_id, r.request_id, r.brief, b.*,
      case when b.assistant_id ~ '^[0-9a-fA-F]{8}-?([0-9a-fA-F]{4}-?){3}[0-9a-fA-F]{12}$' then b.assistant_id::uuid end as by_id
    from rows from (json_to_recordset(p_requests) as (thread_id uuid, request_id text, brief boolean, body json))
        with ordinality as r(thread_id, request_id, brief, body, n),
      json_to_record(r.body) as b(assistant_id text, input json, command json, config jsonb, context jsonb, metadata jsonb,
        stream_mode json, stream_subgraphs boolean, stream_resumable boolean, interrupt_before json, interrupt_after json, webhook text,
        multitask_strategy text, if_not_exists text, after_seconds double precision, on_completion text, durability text,
        checkpoint_during boolean, checkpoint json, checkpoint_id text, feedback_keys json, priority integer, max_attempts smallint)),
  a as materialized (
    select q.*, duragraph.shard_of(q.thread_id) as shard, s.assistant_id as found_id, s.graph_id, s.graph_key,
      coalesce(s.config, '{}') as a_config, coalesce(s.context, '{}') as a_context, s.metadata as a_metadata, t.metadata as t_metadata, t.thread_id is not null as has_thread,
      coalesce(q.config, '{}') as q_config,
      coalesce(q.context, nullif(q.config -> 'configurable', 'null'), '{}') as q_context
    from q
    left join lateral (
      select s.*, g.graph_key from duragraph.assistants s
      join duragraph.graphs g on g.tenant_id = s.tenant_id and g.graph_id = s.graph_id
      where s.tenant_id = p_tenant and s.assistant_id = coalesce(q.by_id,
        (select g2.assistant_id from duragraph.graphs g2 where g2.tenant_id = p_tenant and g2.graph_id = q.assistant_id))
      offset 0) s on true
    left join lateral (
      select t.thread_id, t.metadata from duragraph.threads t
      where not q.temporary and t.shard = duragraph.shard_of(q.thread_id) and t.tenant_id = p_tenant and t.thread_id = q.thread_id
      offset 0) t on true)
  select array_agg((
      a.shard, duragraph.make_id(a.shard), a.thread_id, a.found_id, a.graph_id, a.graph_key, duragraph.queue_ord(coalesce(a.priority, 0)),
      coalesce(a.multitask_strategy, 'enqueue'), a.temporary, coalesce(a.stream_resumable, false), coalesce(a.max_attempts, 3),
      coalesce(a.checkpoint_id, a.checkpoint ->> 'checkpoint_id')::uuid,
      coalesce(a.a_metadata, '{}') || coalesce(a.t_metadata, '{}') || coalesce(nullif(a.q_config -> 'metadata', 'null'), '{}') || coalesce(a.metadata, '{}')
        || jsonb_build_object('graph_id', a.graph_id, 'assistant_id', a.found_id),
      concat('{"input":', coalesce(a.input, 'null'), ',"config":', a.a_config || a.q_config
          || case when a.a_context = '{}' and a.q_context = '{}' and a.request_id is null and not a.a_config ? 'configurable' then '{}'
            else jsonb_build_object('configurable', coalesce(nullif(a.a_config -> 'configurable', 'null'), '{}') || a.a_context || a.q_context
              || case when a.request_id is null then '{}'::jsonb else jsonb_build_object('langgraph_request_id', a.request_id) end) end,
        ',"context":', a.a_context || a.q_context, ',"command":', coalesce(a.command, 'null'),
        ',"stream_mode":', case json_typeof(a.stream_mode) when 'array' then a.stream_mode when 'string' then json_build_array(a.stream_mode)
          else '["values"]' end,
        case when a.stream_subgraphs then ',"subgraphs":true' end, case when a.stream_resumable then ',"resumable":true' end,
        case when a.temporary then ',"temporary":true' end, ',"interrupt_before":' || a.interrupt_before, ',"interrupt_after":' || a.interrupt_after,
        ',"webhook":' || to_json(a.webhook), ',"feedback_keys":' || a.feedback_keys,
        ',"checkpoint_id":' || to_json(coalesce(a.checkpoint_id, a.checkpoint ->> 'checkpoint_id')), ',"on_completion":' || to_json(a.on_completion),
        ',"durability":' || coalesce(to_json(a.durability), case when a.checkpoint_during is false then '"exit"' end::json), '}')::json,
      case when a.after_seconds > 0 then duragraph.current_time() + make_interval(secs => a.after_seconds) end, coalesce(a.brief, false)
    )::duragraph.new_run order by a.n)
  into v_new from a;
  return coalesce(v_new, '{}');
end $$;
comment on function duragraph.resolve_runs(integer, json) is 'First half of create_runs(): finds assistants, merges config, context and metadata. What was not found is null in the answer: check_new_runs() says so.';
