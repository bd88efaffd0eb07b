create or replace function duragraph.thread_interrupts(p_thread duragraph.threads)
returns json
language sql
stable
set enable_seqscan = off set jit = off
as $$
  select coalesce(json_object_agg(t.task_id, t.questions order by t.asked), '{}')
  from (
    select
      i.task_id,
      json_agg(json_build_object('id', i.interrupt_id, 'value', i.value) order by i.ordinal) as questions,
      min(i.raised_at) as asked
    from duragraph.interrupts i
    where i.shard = p_thread.shard and i.tenant_id = p_thread.tenant_id and i.thread_id = p_thread.thread_id
      and i.checkpoint_id = p_thread.checkpoint_id and not i.answered
    group by i.task_id
  ) t
$$;
comment on function duragraph.thread_interrupts(duragraph.threads) is
  'What the thread asks people now: {task id: [{id, value}]}, the unanswered questions of its head checkpoint.';
