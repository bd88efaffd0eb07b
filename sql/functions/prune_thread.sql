create or replace function duragraph.prune_thread(p_tenant integer, p_thread uuid, p_strategy text, p_expired boolean default false)
returns boolean
language plpgsql
as $$
declare
  v_shard smallint := duragraph.shard_of(p_thread);
  v_pruned boolean;
begin
  if p_strategy = 'delete' then
    -- Before the slot, as in delete_thread().
    perform from duragraph.crons c where c.tenant_id = p_tenant and c.thread_id = p_thread order by c.cron_id for update;
  end if;
  -- As in hold_thread(): whoever makes the slot's row has the thread, and who has none is busy.
  insert into duragraph.slots (shard, tenant_id, thread_id) values (v_shard, p_tenant, p_thread) on conflict do nothing;
  if not found then
    return false;
  end if;
  -- What was looked up without the slot is looked up again with it.
  select not p_expired or t.expires_at <= duragraph.current_time() into v_pruned from duragraph.threads t
  where t.shard = v_shard and t.tenant_id = p_tenant and t.thread_id = p_thread;
  if v_pruned and p_strategy = 'keep_latest' then
    perform duragraph.keep_latest(p_tenant, p_thread);
    update duragraph.threads t
    set expires_at = duragraph.current_time() + greatest((t.ttl ->> 'ttl')::double precision, 1) * interval '1 minute'
    where p_expired and t.shard = v_shard and t.tenant_id = p_tenant and t.thread_id = p_thread;
  end if;
  -- Whoever waits at the row waits for the end of this transaction all the same.
  delete from duragraph.slots s where s.shard = v_shard and s.tenant_id = p_tenant and s.thread_id = p_thread;
  if v_pruned and p_strategy = 'delete' then
    perform duragraph.delete_thread(p_tenant, p_thread);
  end if;
  return coalesce(v_pruned, false);
end
$$;
comment on function duragraph.prune_thread(integer, uuid, text, boolean) is
  'Deletes a thread, or (keep_latest) all its checkpoints but the latest; false when it is busy, absent or, with p_expired, has time left.
A thread kept at its latest by its time to live gets that time again.';
