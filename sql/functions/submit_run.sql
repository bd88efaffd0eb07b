create or replace function duragraph.submit_run(p_graph text, p_input jsonb default null, p_thread uuid default null, p_options jsonb default '{}',
  p_tenant integer default 1) returns uuid
language plpgsql as $$
declare
  v_run uuid;
begin
  v_run := (duragraph.create_runs(p_tenant, json_build_array(json_build_object('thread_id', p_thread, 'idempotency_key', p_options ->> 'idempotency_key',
    'body', (p_options - 'idempotency_key') || jsonb_build_object('assistant_id', p_graph, 'input', p_input, 'if_not_exists', 'create')))) -> 0 ->> 'run_id')::uuid;
  perform duragraph.notify_runs(array[v_run], true);
  return v_run;
end $$;
comment on function duragraph.submit_run(text, jsonb, uuid, jsonb, integer) is
  'Submit a run by hand: select duragraph.submit_run(''my_graph'', ''{"question": "why?"}''). Options as in the API: after_seconds, priority, multitask_strategy, max_attempts, idempotency_key, ...';
