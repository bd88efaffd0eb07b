create or replace function duragraph.checkpoint_tasks(
  p_shard smallint, p_tenant integer, p_thread uuid, p_checkpoint uuid, p_tasks json) returns json
language sql stable
set enable_seqscan = off set jit = off as $$
  select coalesce(json_agg(json_strip_nulls(json_build_object('id', t.id, 'name', t.name, 'path', t.path))::jsonb
      || jsonb_build_object('input', t.input::jsonb)
      || jsonb_build_object('interrupts', coalesce((
        select jsonb_agg(jsonb_build_object('id', i.interrupt_id, 'ordinal', i.ordinal, 'value', i.value::jsonb,
            'response_schema', i.response_schema::jsonb, 'answered', i.answered, 'answer', i.answer::jsonb) order by i.ordinal)
        from duragraph.interrupts i
        where i.shard = p_shard and i.tenant_id = p_tenant and i.thread_id = p_thread and i.checkpoint_id = p_checkpoint
          and i.task_id = t.id), '[]')) order by t.n), '[]')
  from rows from (json_to_recordset(p_tasks) as (id uuid, name text, path json, input json)) with ordinality as t(id, name, path, input, n)
$$;
comment on function duragraph.checkpoint_tasks(smallint, integer, uuid, uuid, json) is 'The tasks of a checkpoint with the questions they asked and the answers given: what a worker needs to go on.';
