create or replace function duragraph.run_kwargs(p_kwargs json, p_run uuid, p_thread uuid, p_assistant uuid, p_graph text, p_start uuid) returns json
language plpgsql stable as $$
declare
  v_config jsonb := coalesce(p_kwargs -> 'config', '{}');
  v_ids jsonb := jsonb_build_object('thread_id', p_thread, 'run_id', p_run, 'graph_id', p_graph, 'assistant_id', p_assistant);
begin
  return (
    select '{' || string_agg(to_json(d.key)::text || ':' || coalesce(k.value::text, d.value), ',') || '}' from (values
        ('input', 'null'), ('command', 'null'), ('context', '{}'), ('stream_mode', '["values"]'), ('interrupt_before', 'null'),
        ('interrupt_after', 'null'), ('webhook', 'null'), ('feedback_keys', 'null'), ('temporary', 'false'), ('subgraphs', 'false'),
        ('resumable', 'false'), ('durability', '"async"'), ('on_completion', 'null'), ('checkpoint_during', 'true'),
        ('checkpoint_id', coalesce(to_json(p_start)::text, 'null')),
        ('config', (v_config
          || jsonb_build_object('configurable', coalesce(v_config -> 'configurable', '{}') || v_ids
            || '{"user_id": "", "langgraph_auth_user": null, "langgraph_auth_user_id": ""}')
          || jsonb_build_object('metadata', coalesce(v_config -> 'metadata', '{}') || v_ids))::text)) as d(key, value)
      left join json_each(p_kwargs) k on k.key = d.key and d.key <> 'config')::json;
end $$;
comment on function duragraph.run_kwargs(json, uuid, uuid, uuid, text, uuid) is 'What a run was asked, with the ids that a graph sees in configurable: laid over at reading, stored once.';
