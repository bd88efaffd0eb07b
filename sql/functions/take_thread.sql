create or replace function duragraph.take_thread(p_tenant integer, p_thread uuid)
returns json
language plpgsql
as $$
declare
  v_ended jsonb := '[]'::jsonb;
begin
  -- Whoever makes the slot's row has the thread; a run that arrives now waits at the row until this transaction ends.
  for v_try in 1 .. 100 loop
    insert into duragraph.slots (shard, tenant_id, thread_id)
    values (duragraph.shard_of(p_thread), p_tenant, p_thread)
    on conflict do nothing;
    if found then
      return v_ended;
    end if;
    begin
      v_ended := v_ended || (duragraph.cancel_runs(p_tenant, jsonb_build_object(
        'thread_id', p_thread, 'status', 'all', 'action', 'interrupt', 'reason', 'its thread was deleted'
      )) -> 'runs')::jsonb;
    exception
      when sqlstate 'DG404' then
        null;  -- the last run ended by itself meanwhile
    end;
  end loop;
  raise exception using
    errcode = 'DG409',
    message = 'Thread ' || p_thread || ' keeps getting new runs.',
    hint = 'Stop the client that makes them, then try again.',
    detail = '{"code":"thread_busy"}';
end
$$;
comment on function duragraph.take_thread(integer, uuid) is
  'Ends all runs of a thread and holds its slot to the end of the transaction; gives the runs ended, as cancel_runs() does. The caller deletes the slot''s row.';
