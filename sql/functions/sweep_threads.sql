create or replace function duragraph.sweep_threads(p_limit integer default 100)
returns integer
language plpgsql
set jit = off
as $$
declare
  v_thread record;
  v_swept integer := 0;
begin
  -- One sweep at a time: a second would only wait for the slots of the first.
  if not pg_try_advisory_xact_lock(hashtext('duragraph.sweep_threads')) then
    return 0;
  end if;
  for v_thread in
    select x.* from (
      select t.shard, t.tenant_id, t.thread_id, t.ttl ->> 'strategy' as strategy from duragraph.threads t
      where t.expires_at <= duragraph.current_time() and not exists (
        select from duragraph.slots s where s.shard = t.shard and s.tenant_id = t.tenant_id and s.thread_id = t.thread_id
      )
      order by t.expires_at
      limit p_limit
    ) x
    order by x.shard, x.tenant_id, x.thread_id
  loop
    v_swept := v_swept + duragraph.prune_thread(v_thread.tenant_id, v_thread.thread_id, v_thread.strategy, true)::integer;
  end loop;
  return v_swept;
end
$$;
comment on function duragraph.sweep_threads(integer) is
  'Prunes threads whose time to live is over, as its strategy says, the longest expired first: how many. Busy threads are left for later; a sweep beside another does nothing.';
