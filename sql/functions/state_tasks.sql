create or replace function duragraph.state_tasks(p_checkpoint duragraph.checkpoints, p_error json, p_subgraphs boolean)
returns json
language sql
stable
set enable_seqscan = off set jit = off
as $$
  select coalesce(json_agg(
    json_build_object(
      'id', t.task ->> 'id',
      'name', t.task ->> 'name',
      -- As LangGraph's own tools look for it.
      'path', regexp_replace((t.task -> 'path')::text, '^\[\s*"__(pull|push)__"', '["__pregel_\1"')::json,
      'error', case
        when not done.found and asked.questions is null and p_error is not null
          then (p_error ->> 'error') || '(' || quote_literal(p_error ->> 'message') || ')'
      end,
      'interrupts', coalesce(asked.questions, '[]'),
      'checkpoint', case
        when child.found and not p_subgraphs
          then json_build_object('thread_id', p_checkpoint.thread_id, 'checkpoint_ns', child.checkpoint_ns)
      end,
      'state', case
        when child.found and p_subgraphs
          then duragraph.state_json(
            p_checkpoint.shard, p_checkpoint.tenant_id, p_checkpoint.thread_id, child.checkpoint_ns, null, null, true
          )
      end,
      'result', coalesce(done.result -> '__command__' -> 'update', done.result)
    )
    order by t.n
  ), '[]')
  from (
    select split_part(split_part(p_checkpoint.checkpoint_ns, '|', 1), ':', 2) as root_task,
      p_checkpoint.checkpoint_ns <> '' and not exists (
        select from duragraph.checkpoints k
        where k.shard = p_checkpoint.shard and k.tenant_id = p_checkpoint.tenant_id and k.thread_id = p_checkpoint.thread_id
          and k.checkpoint_ns = p_checkpoint.checkpoint_ns and k.step > p_checkpoint.step
      ) as newest
  ) v
  cross join json_array_elements(p_checkpoint.tasks) with ordinality t (task, n)
  cross join lateral (
    select concat_ws('|', nullif(p_checkpoint.checkpoint_ns, ''), (t.task ->> 'name') || ':' || (t.task ->> 'id')) as checkpoint_ns
  ) inside
  left join lateral (
    select json_agg(json_build_object('id', i.interrupt_id, 'value', i.value) order by i.ordinal) as questions
    from duragraph.interrupts i
    where i.shard = p_checkpoint.shard and i.tenant_id = p_checkpoint.tenant_id and i.thread_id = p_checkpoint.thread_id
      and not i.answered
      and (
        (i.checkpoint_id = p_checkpoint.checkpoint_id and i.task_id = (t.task ->> 'id')::uuid)
        -- What a subgraph asks is kept with the task of the whole graph that it is in: it names the node, and where.
        or (
          v.newest and i.task_id::text = v.root_task
          and (
            (i.checkpoint_ns = p_checkpoint.checkpoint_ns and i.node = t.task ->> 'name' and not exists (
              select from json_array_elements(p_checkpoint.tasks) with ordinality o (task, n)
              where o.n < t.n and o.task ->> 'name' = i.node
            ))
            or i.checkpoint_ns = inside.checkpoint_ns or starts_with(i.checkpoint_ns, inside.checkpoint_ns || '|')
          )
        )
      )
  ) asked on true
  left join lateral (
    select count(*) > 0 as found, (array_agg(s.result))[1] as result
    from duragraph.steps s
    where s.shard = p_checkpoint.shard and s.tenant_id = p_checkpoint.tenant_id and s.thread_id = p_checkpoint.thread_id
      and s.checkpoint_id = p_checkpoint.checkpoint_id and s.task_id = (t.task ->> 'id')::uuid and s.step_key = ''
  ) done on true
  left join lateral (
    select inside.checkpoint_ns, exists (
      select from duragraph.checkpoints k
      where k.shard = p_checkpoint.shard and k.tenant_id = p_checkpoint.tenant_id and k.thread_id = p_checkpoint.thread_id
        and k.checkpoint_ns = inside.checkpoint_ns
    ) as found
  ) child on true
$$;
comment on function duragraph.state_tasks(duragraph.checkpoints, json, boolean) is
  'The tasks of a checkpoint as the API shows them: open questions, result or error, and the state of a subgraph (or where it is).';
