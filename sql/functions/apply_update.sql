create or replace function duragraph.apply_update(
  p_thread duragraph.threads, p_base uuid, p_updates json, p_definition jsonb
)
returns uuid
language plpgsql
as $$
declare
  v_id uuid := duragraph.make_id(p_thread.shard);
  v_declared jsonb := nullif(p_definition -> 'channels', '{}');
  v_base duragraph.checkpoints;
  v_channels jsonb;
  v_write record;
  v_tasks json;
begin
  if p_definition ? 'hosted' then
    raise exception using
      errcode = 'DG422',
      message = 'The state of graph ''' || (p_definition ->> 'graph_id') || ''' is made by its own library, which only a worker has.',
      hint = 'Over HTTP a worker is asked.',
      detail = '{"code":"worker_needed","field":"values"}';
  end if;
  select * into v_base from duragraph.checkpoints c
  where c.shard = p_thread.shard and c.tenant_id = p_thread.tenant_id and c.thread_id = p_thread.thread_id
    and c.checkpoint_ns = '' and c.checkpoint_id = p_base;
  v_channels := coalesce(v_base.channels, '{}');
  for v_write in
    select w.channel, w.value, v_declared -> w.channel ->> 'reducer' as reducer
    from json_array_elements(p_updates) with ordinality u (body, n), duragraph.update_writes(u.body -> 'values') w
    -- Names that begin with __ are the engine's own.
    where (v_declared is null or v_declared ? w.channel) and left(w.channel, 2) <> '__'
    order by u.n
  loop
    perform duragraph.write_channel(
      p_thread, v_id, v_write.channel, (v_channels ->> v_write.channel)::uuid, v_write.reducer, v_write.value
    );
    v_channels := v_channels || jsonb_build_object(v_write.channel, v_id);
  end loop;
  v_tasks := duragraph.new_tasks(v_id, duragraph.tasks_after_update(p_updates, p_definition, v_base.tasks));
  insert into duragraph.checkpoints (
    shard, tenant_id, thread_id, checkpoint_id, parent_checkpoint_id, step, source, channels, next, tasks, metadata, created_at
  )
  values (
    p_thread.shard, p_thread.tenant_id, p_thread.thread_id, v_id, v_base.checkpoint_id, coalesce(v_base.step, -1) + 1, 'update',
    v_channels,
    array(select t ->> 'name' from json_array_elements(v_tasks) t),
    v_tasks,
    jsonb_strip_nulls(jsonb_build_object('graph_id', p_thread.metadata -> 'graph_id', 'assistant_id', p_thread.metadata -> 'assistant_id')),
    -- Later than the head, even when this transaction began while the run that made it was ending.
    greatest(duragraph.current_time(), (
      select h.created_at + interval '1 microsecond' from duragraph.checkpoints h
      where h.shard = p_thread.shard and h.tenant_id = p_thread.tenant_id and h.thread_id = p_thread.thread_id
        and h.checkpoint_ns = '' and h.checkpoint_id = p_thread.checkpoint_id
    ))
  );
  return v_id;
end
$$;
comment on function duragraph.apply_update(duragraph.threads, uuid, json, jsonb) is
  'Makes the checkpoint that follows p_base by one superstep of updates [{values, as_node}] from outside, and gives its id.
Channels that the definition does not declare are left out; a definition that declares none takes all but names that begin with __.';
