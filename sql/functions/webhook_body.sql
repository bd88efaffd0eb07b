create or replace function duragraph.webhook_body(p_run duragraph.runs, p_status text)
returns json
language sql
stable
as $$
  select duragraph.merged_json(duragraph.run_json(p_run, p_status), json_build_object(
    'run_started_at', duragraph.iso(p_run.started_at),
    'run_ended_at', duragraph.iso(p_run.ended_at),
    'values', case when not p_run.temporary then duragraph.checkpoint_values(
      p_run.shard, p_run.tenant_id, p_run.thread_id, '', coalesce(p_run.checkpoint_id, (
        select t.checkpoint_id from duragraph.threads t
        where t.shard = p_run.shard and t.tenant_id = p_run.tenant_id and t.thread_id = p_run.thread_id
      ))
    ) end
  ))
$$;
comment on function duragraph.webhook_body(duragraph.runs, text) is
  'What a webhook is told of a run that has ended: the Run, when it started and ended, and its thread''s values (null for a stateless one).';
