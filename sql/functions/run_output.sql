create or replace function duragraph.run_output(p_tenant integer, p_run uuid) returns json
language plpgsql stable
set enable_seqscan = off set jit = off as $$
declare
  v_run duragraph.runs;
  v_status text;
  v_asked json;
  v_output json;
begin
  select r.* into v_run from duragraph.runs r where r.shard = duragraph.shard_of(p_run) and r.run_id = p_run and r.tenant_id = p_tenant;
  if not found then
    raise exception using errcode = 'DG404', message = format('Run %s not found.', p_run),
      hint = 'It may have been deleted or rolled back.', detail = '{"code": "run_not_found", "field": "run_id"}';
  end if;
  v_status := duragraph.run_status(v_run.shard, p_run);
  if v_status in ('error', 'timeout') then
    v_output := json_build_object('__error__', v_run.error);
  elsif v_run.output is not null then
    v_output := v_run.output;
  elsif v_run.checkpoint_id is not null then
    select json_agg(json_build_object('value', i.value, 'id', i.interrupt_id, 'response_schema', i.response_schema) order by t.n, i.ordinal)
      into v_asked from duragraph.interrupts i
      join duragraph.checkpoints c on c.shard = i.shard and c.tenant_id = i.tenant_id and c.thread_id = i.thread_id
        and c.checkpoint_ns = '' and c.checkpoint_id = i.checkpoint_id
      left join lateral json_array_elements(c.tasks) with ordinality t (task, n) on (t.task ->> 'id')::uuid = i.task_id
      where i.shard = v_run.shard and i.tenant_id = p_tenant and i.thread_id = v_run.thread_id and i.checkpoint_id = v_run.checkpoint_id and not i.answered;
    v_output := duragraph.overlay_json(
      duragraph.checkpoint_values(v_run.shard, p_tenant, v_run.thread_id, '', v_run.checkpoint_id)::text,
      case when v_asked is not null then json_build_object('__interrupt__', v_asked)::text end)::json;
  elsif not v_run.temporary then
    select duragraph.checkpoint_values(t.shard, t.tenant_id, t.thread_id, '', t.checkpoint_id) into v_output
      from duragraph.threads t where t.shard = v_run.shard and t.tenant_id = p_tenant and t.thread_id = v_run.thread_id;
  end if;
  return json_build_object('status', v_status, 'done', v_run.status <> 'pending', 'output', coalesce(v_output, '{}'));
end $$;
comment on function duragraph.run_output(integer, uuid) is
  'What wait and join answer: {status, done, output}. output: the final values, with __interrupt__ if it stopped to ask, or {"__error__": {error, message}}.';
