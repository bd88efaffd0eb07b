create or replace function duragraph.run_kwargs(p_run duragraph.runs) returns json
language plpgsql stable as $$
declare
  v_config jsonb := coalesce(p_run.kwargs -> 'config', '{}');
  v_ids jsonb := jsonb_build_object('thread_id', p_run.thread_id, 'run_id', p_run.run_id, 'graph_id', p_run.metadata ->> 'graph_id',
    'assistant_id', p_run.assistant_id);
begin
  return (
    select '{' || string_agg(to_json(d.key)::text || ':' || coalesce(k.value::text, d.value), ',') || '}' from (values
        ('input', 'null'), ('command', 'null'), ('context', '{}'), ('stream_mode', '["values"]'), ('interrupt_before', 'null'),
        ('interrupt_after', 'null'), ('webhook', 'null'), ('feedback_keys', 'null'), ('temporary', p_run.temporary::text), ('subgraphs', 'false'),
        ('resumable', 'false'), ('durability', '"async"'), ('on_completion', 'null'), ('checkpoint_during', 'true'),
        ('checkpoint_id', coalesce(to_json(p_run.start_checkpoint_id)::text, 'null')),
        ('config', (v_config
          || jsonb_build_object('configurable', coalesce(nullif(v_config -> 'configurable', 'null'), '{}') || v_ids
            || '{"user_id": "", "langgraph_auth_user": null, "langgraph_auth_user_id": ""}')
          || jsonb_build_object('metadata', coalesce(nullif(v_config -> 'metadata', 'null'), '{}') || p_run.metadata || v_ids))::text)) as d(key, value)
      left join json_each(p_run.kwargs) k on k.key = d.key and d.key <> 'config')::json;
end $$;
comment on function duragraph.run_kwargs(duragraph.runs) is
  'What a run was asked, with the ids and the metadata that its graph sees in the config: laid over at reading, stored once.';
