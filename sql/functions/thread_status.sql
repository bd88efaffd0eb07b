create or replace function duragraph.thread_status(p_thread duragraph.threads)
returns text
language sql
stable
as $$
  select case
    when exists (
      select from duragraph.slots s
      where s.shard = p_thread.shard and s.tenant_id = p_thread.tenant_id and s.thread_id = p_thread.thread_id
    ) then 'busy'
    else p_thread.status
  end
$$;
comment on function duragraph.thread_status(duragraph.threads) is
  'busy while a run of the thread is running, queued or delayed; else what it rests in: idle, interrupted, error.';
