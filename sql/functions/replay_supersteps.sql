create or replace function duragraph.replay_supersteps(p_thread duragraph.threads, p_supersteps json)
returns duragraph.threads
language plpgsql
as $$
declare
  v_thread duragraph.threads := p_thread;
  v_definition jsonb := duragraph.thread_definition(p_thread, null);
  v_step json;
begin
  for v_step in select s.step from json_array_elements(p_supersteps) with ordinality s (step, n) order by s.n loop
    v_thread := duragraph.rest_thread(v_thread, duragraph.apply_update(
      v_thread, v_thread.checkpoint_id, coalesce(v_step -> 'updates', '[]'), v_definition
    ));
  end loop;
  return v_thread;
end
$$;
comment on function duragraph.replay_supersteps(duragraph.threads, json) is
  'Builds the history of a new thread: [{updates: [{values, as_node}]}], one checkpoint each.';
