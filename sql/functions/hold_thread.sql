create or replace function duragraph.hold_thread(p_tenant integer, p_thread uuid)
returns duragraph.threads
language plpgsql
as $$
begin
  -- As in take_thread(): a run that arrives now waits at the slot's row until this transaction ends.
  insert into duragraph.slots (shard, tenant_id, thread_id)
  values (duragraph.shard_of(p_thread), p_tenant, p_thread)
  on conflict do nothing;
  if not found then
    raise exception using
      errcode = 'DG409',
      message = 'Thread is already running a task. Wait for it to finish before changing its state.',
      hint = 'Cancel its runs with POST /runs/cancel, or wait until the thread is not busy.',
      detail = '{"code":"thread_busy","field":"thread_id"}';
  end if;
  perform from duragraph.threads t
  where t.shard = duragraph.shard_of(p_thread) and t.tenant_id = p_tenant and t.thread_id = p_thread
  for no key update;
  return duragraph.find_thread(p_tenant, p_thread);
end
$$;
comment on function duragraph.hold_thread(integer, uuid) is
  'Holds the slot of a thread on which nothing runs to the end of the transaction, or 409. The caller deletes the slot''s row.';
