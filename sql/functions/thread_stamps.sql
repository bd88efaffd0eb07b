create or replace function duragraph.thread_stamps(p_tenant integer, p_threads uuid[])
returns table (thread_id uuid, stamp text)
language sql
stable
set enable_seqscan = off set enable_hashjoin = off set enable_mergejoin = off set jit = off as $$
  select t.thread_id, concat_ws(' ', t.updated_at, s.active_run_id, s.waiting, s.delayed, l.started)
  from unnest(p_threads) u (thread_id)
  join lateral (
    select t.* from duragraph.threads t
    where t.shard = duragraph.shard_of(u.thread_id) and t.tenant_id = p_tenant and t.thread_id = u.thread_id offset 0
  ) t on true
  left join lateral (
    select s.* from duragraph.slots s
    where s.shard = t.shard and s.tenant_id = t.tenant_id and s.thread_id = t.thread_id offset 0
  ) s on true
  left join lateral (
    select l.* from duragraph.leases l where l.shard = t.shard and l.run_id = s.active_run_id offset 0
  ) l on true
$$;
comment on function duragraph.thread_stamps(integer, uuid[]) is
  'For many threads a text that differs whenever thread_entries() may give more than before; no row for a thread that is not there.';
