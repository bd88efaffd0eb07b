create or replace function duragraph.sweep_items(p_limit integer default 1000)
returns integer
language plpgsql
set enable_seqscan = off
set jit = off
as $$
declare
  v_gone integer;
begin
  with due as (
    select i.tenant_id, i.namespace, i.key
    from duragraph.store_items i
    where i.expires_at <= duragraph.current_time()
    order by i.expires_at
    limit p_limit
    for update skip locked
  )
  delete from duragraph.store_items i
  using due
  where i.tenant_id = due.tenant_id and i.namespace = due.namespace and i.key = due.key;
  get diagnostics v_gone = row_count;
  return v_gone;
end
$$;
comment on function duragraph.sweep_items(integer) is 'Deletes up to so many items whose time is over; gives how many.';
