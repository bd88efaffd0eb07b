create or replace function duragraph.owe_webhooks(p_ends duragraph.run_end[])
returns void
language plpgsql
set enable_seqscan = off
set enable_hashjoin = off
set enable_mergejoin = off
set jit = off
set plan_cache_mode = force_generic_plan
as $$
begin
  with w as (
    delete from duragraph.webhooks w
    using unnest(p_ends) e
    where w.shard = any (array[e.shard]) and w.run_id = e.run_id
    returning w.shard, w.run_id, w.url, e.status = 'interrupted' and e.error ->> 'error' = 'UserRollback' as undone
  )
  insert into duragraph.webhook_deliveries (shard, delivery_id, tenant_id, run_id, url, next_attempt_at, body, created_at)
  select
    w.shard, duragraph.make_id(w.shard), r.tenant_id, w.run_id, w.url, duragraph.current_time(),
    duragraph.webhook_body(r, case when w.undone then 'rollback' else r.status end), duragraph.current_time()
  from w
  join duragraph.runs r on r.shard = any (array[w.shard]) and r.run_id = w.run_id;
  -- A commit that owes something pays for a notification; all others do not.
  if found then
    perform pg_notify('duragraph_webhooks', '');
  end if;
end
$$;
comment on function duragraph.owe_webhooks(duragraph.run_end[]) is
  'Writes down whom to tell of runs that have just ended, in the transaction that ends them, and wakes the control planes. Most runs have nobody to tell.';
