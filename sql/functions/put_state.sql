create or replace function duragraph.put_state(p_tenant integer, p_thread uuid, p_request json)
returns json
language plpgsql
as $$
declare
  v_point record := duragraph.checkpoint_point(
    coalesce(nullif((p_request -> 'checkpoint')::jsonb, 'null'), (p_request -> 'checkpoint_id')::jsonb), 'checkpoint'
  );
  v_thread duragraph.threads;
  v_base uuid;
begin
  v_thread := duragraph.hold_thread(p_tenant, p_thread);
  if v_point.checkpoint_ns <> '' then
    raise exception using
      errcode = 'DG422',
      message = 'The state of a subgraph can only be changed by a worker.',
      hint = 'Update the state of the graph around it.',
      detail = '{"code":"worker_needed","field":"checkpoint"}';
  end if;
  if v_point.checkpoint_id is not null and not exists (
    select from duragraph.checkpoints c
    where c.shard = v_thread.shard and c.tenant_id = p_tenant and c.thread_id = p_thread and c.checkpoint_ns = ''
      and c.checkpoint_id = v_point.checkpoint_id
  ) then
    raise exception using
      errcode = 'DG404',
      message = 'Thread ' || p_thread || ' has no checkpoint ' || v_point.checkpoint_id || '.',
      hint = 'List its checkpoints with POST /threads/{thread_id}/history.',
      detail = '{"code":"checkpoint_not_found","field":"checkpoint"}';
  end if;
  v_base := coalesce(v_point.checkpoint_id, v_thread.checkpoint_id);
  v_thread := duragraph.rest_thread(v_thread, duragraph.apply_update(
    v_thread, v_base, json_build_array(p_request), duragraph.thread_definition(v_thread, v_base)
  ));
  insert into duragraph.state_updates (shard, tenant_id, thread_id, update_id, checkpoint_id, updated_at)
  values (v_thread.shard, p_tenant, p_thread, duragraph.make_id(v_thread.shard), v_thread.checkpoint_id, duragraph.current_time());
  delete from duragraph.slots s where s.shard = v_thread.shard and s.tenant_id = p_tenant and s.thread_id = p_thread;
  return json_build_object(
    'checkpoint', json_build_object('thread_id', p_thread, 'checkpoint_ns', '', 'checkpoint_id', v_thread.checkpoint_id),
    'configurable', json_build_object('thread_id', p_thread, 'checkpoint_ns', '', 'checkpoint_id', v_thread.checkpoint_id),
    'checkpoint_id', v_thread.checkpoint_id
  );
end
$$;
comment on function duragraph.put_state(integer, uuid, json) is
  'Changes a thread''s state from outside: {values, as_node?, checkpoint? or checkpoint_id?}, through the reducers of its graph.
At an older checkpoint it forks. 409 while a run is in flight; gives {checkpoint, configurable, checkpoint_id}.';
