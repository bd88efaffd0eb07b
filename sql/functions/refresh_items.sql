create or replace function duragraph.refresh_items(p_items duragraph.store_items[])
returns void
language sql
set enable_seqscan = off
set enable_hashjoin = off
set enable_mergejoin = off
set jit = off
as $$
  -- What somebody is writing gets its new time from them: nobody waits here.
  with due as (
    select i.tenant_id, i.namespace, i.key
    from unnest(p_items) p
    join duragraph.store_items i on i.tenant_id = p.tenant_id and i.namespace = p.namespace and i.key = p.key
    where p.ttl is not null and i.expires_at > duragraph.current_time()
    for update of i skip locked
  )
  update duragraph.store_items i set expires_at = duragraph.current_time() + i.ttl * interval '1 minute'
  from due
  where i.tenant_id = due.tenant_id and i.namespace = due.namespace and i.key = due.key
$$;
comment on function duragraph.refresh_items(duragraph.store_items[]) is 'Items that were read, and expire, begin their time anew.';
