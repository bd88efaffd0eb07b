create or replace function duragraph.state_json(
  p_shard smallint, p_tenant integer, p_thread uuid, p_ns text, p_checkpoint uuid, p_error json default null,
  p_subgraphs boolean default false
)
returns json
language sql
stable
set enable_seqscan = off set jit = off
as $$
  select json_build_object(
    'values', duragraph.checkpoint_values(c.shard, c.tenant_id, c.thread_id, c.checkpoint_ns, c.checkpoint_id),
    'next', c.next,
    'tasks', t.tasks,
    'metadata', duragraph.checkpoint_metadata(c),
    'created_at', duragraph.iso(c.created_at),
    'checkpoint', json_build_object(
      'checkpoint_id', c.checkpoint_id, 'thread_id', c.thread_id, 'checkpoint_ns', c.checkpoint_ns
    ),
    'parent_checkpoint', case
      when c.parent_checkpoint_id is not null
        then json_build_object(
          'checkpoint_id', c.parent_checkpoint_id, 'thread_id', c.thread_id, 'checkpoint_ns', c.checkpoint_ns
        )
    end,
    'interrupts', (
      select coalesce(json_agg(q.question order by k.n, q.n), '[]')
      from json_array_elements(t.tasks) with ordinality k (task, n),
        json_array_elements(k.task -> 'interrupts') with ordinality q (question, n)
    ),
    'checkpoint_id', c.checkpoint_id,
    'parent_checkpoint_id', c.parent_checkpoint_id
  )
  from (
    select k from duragraph.checkpoints k
    where k.shard = p_shard and k.tenant_id = p_tenant and k.thread_id = p_thread and k.checkpoint_ns = p_ns
      and k.checkpoint_id = coalesce(p_checkpoint, k.checkpoint_id)
    order by k.created_at desc, k.step desc, k.checkpoint_id desc
    limit 1
  ) found
  cross join lateral (select (found.k).*) c
  cross join lateral (select duragraph.state_tasks(found.k, p_error, p_subgraphs) as tasks) t
$$;
comment on function duragraph.state_json(smallint, integer, uuid, text, uuid, json, boolean) is
  'The state at a checkpoint (null: the newest of that namespace) as the API shows it; null when there is none.
p_error: why the run that stopped there failed; p_subgraphs: with the states of subgraphs inside.';
