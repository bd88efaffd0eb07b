create or replace function duragraph.begin_update(p_tenant integer, p_thread uuid, p_supersteps json, p_point json default null) returns uuid
language plpgsql as $$
declare
  v_thread duragraph.threads := duragraph.find_thread(p_tenant, p_thread);
  v_point record := duragraph.checkpoint_point(nullif(p_point::jsonb, 'null'), 'checkpoint');
  v_graph text := v_thread.metadata ->> 'graph_id';
  v_run uuid;
begin
  perform duragraph.thread_definition(v_thread, null);
  v_run := duragraph.create_runs(p_tenant, json_build_array(json_build_object('thread_id', p_thread, 'brief', true, 'body', json_build_object(
    'assistant_id', coalesce(v_thread.metadata ->> 'assistant_id', v_graph), 'multitask_strategy', 'reject',
    'stream_mode', json_build_array('custom'), 'checkpoint_id', v_point.checkpoint_id)))) -> 0 ->> 'run_id';
  update duragraph.runs r set kind = 'update', kwargs = concat(left(r.kwargs::text, -1), ',"state_update":', p_supersteps, '}')::json
    where r.shard = duragraph.shard_of(v_run) and r.run_id = v_run;
  return v_run;
end $$;
comment on function duragraph.begin_update(integer, uuid, json, json) is
  'Queues a change of state that needs the graph''s code, [{updates: [{values, as_node}]}], as a run of kind update, from a checkpoint or the head; its output is {checkpoint_id} or {refused: {error, message}}. 409 while a run is in flight.';
