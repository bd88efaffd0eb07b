create or replace function duragraph.find_thread(p_tenant integer, p_thread uuid)
returns duragraph.threads
language plpgsql
stable
as $$
declare
  v_thread duragraph.threads;
begin
  select * into v_thread from duragraph.threads t
  where t.shard = duragraph.shard_of(p_thread) and t.tenant_id = p_tenant and t.thread_id = p_thread;
  if not found then
    raise exception using
      errcode = 'DG404',
      message = 'Thread ' || p_thread || ' not found.',
      hint = 'Create it with POST /threads, or list threads with POST /threads/search.',
      detail = '{"code":"thread_not_found","field":"thread_id"}';
  end if;
  return v_thread;
end
$$;
comment on function duragraph.find_thread(integer, uuid) is 'The thread''s row, or 404.';
