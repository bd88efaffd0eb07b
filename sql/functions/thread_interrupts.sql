create or replace function duragraph.thread_interrupts(p_thread duragraph.threads)
returns json
language sql
stable
set enable_seqscan = off set jit = off
as $$
  select coalesce(json_object_agg(q.task_id, q.questions order by q.n, q.task_id), '{}')
  from (
    select
      i.task_id,
      json_agg(json_build_object('id', i.interrupt_id, 'value', i.value) order by i.ordinal) as questions,
      min(t.n) as n
    from duragraph.interrupts i
    left join duragraph.checkpoints c
      on c.shard = i.shard and c.tenant_id = i.tenant_id and c.thread_id = i.thread_id and c.checkpoint_ns = '' and c.checkpoint_id = i.checkpoint_id
    left join lateral (
      select t.n from json_array_elements(c.tasks) with ordinality t (task, n) where t.task ->> 'id' = i.task_id::text
    ) t on true
    where i.shard = p_thread.shard and i.tenant_id = p_thread.tenant_id and i.thread_id = p_thread.thread_id
      and i.checkpoint_id = p_thread.checkpoint_id and not i.answered
      -- In a hosted graph a task may call others, which are none of the checkpoint's: it asks what they ask.
      and (c.saved is null or t.n is not null)
    group by i.task_id
  ) q
$$;
comment on function duragraph.thread_interrupts(duragraph.threads) is
  'What the thread asks people now: {task id: [{id, value}]}, the unanswered questions of its head checkpoint, in the order of its tasks.';
