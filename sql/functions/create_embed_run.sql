create or replace function duragraph.create_embed_run(p_graph duragraph.graphs, p_input jsonb, p_priority integer, p_max_attempts integer)
returns uuid
language plpgsql
as $$
declare
  v_thread uuid := duragraph.make_id();
  v_shard smallint := duragraph.shard_of(v_thread);
  v_run uuid := duragraph.make_id(v_shard);
  v_ord bigint := duragraph.queue_ord(p_priority);
begin
  insert into duragraph.ready (graph_key, ord, shard, run_id, tenant_id) values (p_graph.graph_key, v_ord, v_shard, v_run, p_graph.tenant_id);
  insert into duragraph.runs (
    shard, run_id, tenant_id, thread_id, assistant_id, graph_key, temporary, ord, max_attempts, metadata, kwargs, created_at
  )
  values (
    v_shard, v_run, p_graph.tenant_id, v_thread, p_graph.assistant_id, p_graph.graph_key, true, v_ord, p_max_attempts,
    jsonb_build_object('graph_id', p_graph.graph_id, 'assistant_id', p_graph.assistant_id),
    json_build_object(
      'input', p_input, 'config', '{}'::json, 'context', '{}'::json, 'command', null, 'stream_mode', '["values"]'::json, 'temporary', true
    ),
    duragraph.current_time()
  );
  return v_run;
end
$$;
comment on function duragraph.create_embed_run(duragraph.graphs, jsonb, integer, integer) is
  'Makes a stateless run of the embedder: {texts} to be embedded, or {items: as item_to_index()} to be indexed.';
