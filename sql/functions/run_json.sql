create or replace function duragraph.run_json(p_run duragraph.runs, p_status text) returns json
language plpgsql stable as $$
begin
  return json_build_object(
    'run_id', p_run.run_id, 'thread_id', p_run.thread_id, 'assistant_id', p_run.assistant_id,
    'created_at', duragraph.iso(p_run.created_at),
    'updated_at', duragraph.iso(coalesce(p_run.ended_at, p_run.started_at, p_run.created_at)),
    'status', p_status, 'metadata', p_run.metadata,
    'kwargs', duragraph.run_kwargs(p_run),
    'multitask_strategy', p_run.multitask_strategy,
    'attempt', p_run.attempt, 'error', p_run.error, 'cancel_reason', case when p_status = 'interrupted' then p_run.reason end,
    'langsmith_session_name', null);
end $$;
comment on function duragraph.run_json(duragraph.runs, text) is 'A run as the API shows it.';
