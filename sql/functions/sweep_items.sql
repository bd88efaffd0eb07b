create or replace function duragraph.sweep_items(p_limit integer default 1000)
returns integer
language plpgsql
set enable_seqscan = off
set jit = off
as $$
declare
  v_gone duragraph.store_items[];
begin
  with due as (
    select i.tenant_id, i.namespace, i.key
    from duragraph.store_items i
    where i.expires_at <= duragraph.current_time()
    order by i.expires_at
    limit p_limit
    for update skip locked
  ),
  gone as (
    delete from duragraph.store_items i
    using due
    where i.tenant_id = due.tenant_id and i.namespace = due.namespace and i.key = due.key
    returning i
  )
  select array_agg(gone.i) into v_gone from gone;
  -- Afterwards: what was written until the item was held is seen only now.
  delete from duragraph.store_vectors v
  using unnest(v_gone) i
  where v.tenant_id = i.tenant_id and v.namespace = i.namespace and v.key = i.key;
  return coalesce(cardinality(v_gone), 0);
end
$$;
comment on function duragraph.sweep_items(integer) is 'Deletes up to so many items whose time is over, and their vectors; gives how many.';
