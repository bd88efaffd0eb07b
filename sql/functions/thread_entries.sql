create or replace function duragraph.thread_entries(
  p_tenant integer, p_thread uuid, p_from timestamptz default '-infinity', p_limit integer default 500
)
returns table (entry_id uuid, began_at timestamptz, status text, last_seq integer, graph_id text, checkpoint_id uuid, born_at timestamptz)
language sql
stable
set plan_cache_mode = force_custom_plan set enable_seqscan = off set enable_hashjoin = off set enable_mergejoin = off set jit = off as $$
  -- Planned at each call: a plan made while there were few runs would walk through all of the tenant's for ever.
  select x.entry_id, x.began_at, x.status, x.last_seq, x.graph_id, x.checkpoint_id, t.created_at
  from duragraph.find_thread(p_tenant, p_thread) t
  left join lateral (
    select
      r.run_id as entry_id,
      -- Of a run that never began, its end is the moment it shows.
      coalesce(r.started_at, case when l.started then l.claimed_at end, r.ended_at) as began_at,
      case when r.status <> 'pending' then r.status when l.run_id is not null then 'running' else 'pending' end as status,
      coalesce(l.last_seq, r.last_seq) as last_seq,
      r.metadata ->> 'graph_id' as graph_id,
      null::uuid as checkpoint_id
    from duragraph.runs r
    left join lateral (
      select l.* from duragraph.leases l where r.status = 'pending' and l.shard = r.shard and l.run_id = r.run_id offset 0
    ) l on true
    where r.shard = duragraph.shard_of(p_thread) and r.tenant_id = p_tenant and r.thread_id = p_thread and not r.temporary and r.kind = 'run'
      and coalesce(r.started_at, case when l.started then l.claimed_at end, r.ended_at) >= p_from
    union all
    select u.update_id, u.updated_at, 'updated', 0, null, u.checkpoint_id
    from duragraph.state_updates u
    where u.shard = duragraph.shard_of(p_thread) and u.tenant_id = p_tenant and u.thread_id = p_thread and u.updated_at >= p_from
    union all
    select r.run_id, r.ended_at, 'updated', 0, null, r.checkpoint_id
    from duragraph.runs r
    where r.shard = duragraph.shard_of(p_thread) and r.tenant_id = p_tenant and r.thread_id = p_thread and not r.temporary and r.kind = 'update'
      and r.status = 'success' and r.checkpoint_id is not null and r.ended_at >= p_from
    order by began_at, entry_id
    limit p_limit
  ) x on true
  order by x.began_at, x.entry_id
$$;
comment on function duragraph.thread_entries(integer, uuid, timestamptz, integer) is
  'What happened on a thread from a time on, in its order: runs that began (or ended before they did) and state updates (those have a checkpoint_id), a worker''s among them.
One row of nulls but born_at, when the thread was made, if there is nothing; 404 for an unknown thread.';
