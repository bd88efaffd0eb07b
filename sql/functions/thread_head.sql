create or replace function duragraph.thread_head(p_thread duragraph.threads)
returns uuid
language sql
stable
set enable_seqscan = off set jit = off
as $$
  select coalesce(
    (
      select coalesce(l.checkpoint_id, r.checkpoint_id)
      from duragraph.slots s
      join duragraph.runs r on r.shard = s.shard and r.run_id = s.active_run_id
      left join duragraph.leases l on l.shard = s.shard and l.run_id = s.active_run_id
      where s.shard = p_thread.shard and s.tenant_id = p_thread.tenant_id and s.thread_id = p_thread.thread_id
    ),
    p_thread.checkpoint_id
  )
$$;
comment on function duragraph.thread_head(duragraph.threads) is
  'The newest checkpoint of the thread: of its active run while that works, else the one it rests at.';
