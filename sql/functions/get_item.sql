create or replace function duragraph.get_item(p_tenant integer, p_op jsonb)
returns json
language plpgsql
set enable_seqscan = off
set jit = off
as $$
declare
  v_namespace text[] := duragraph.namespace_of(p_op, 'namespace', true);
  v_key text := duragraph.item_key(p_op, v_namespace);
  v_item duragraph.store_items;
begin
  select i.* into v_item
  from duragraph.store_items i
  where i.tenant_id = p_tenant and i.namespace = v_namespace and i.key = v_key
    and (i.expires_at is null or i.expires_at > duragraph.current_time());
  if not found then
    return null;
  end if;
  if v_item.ttl is not null and coalesce((p_op ->> 'refresh_ttl')::boolean, true) then
    perform duragraph.refresh_items(array[v_item]);
  end if;
  return duragraph.item_json(v_item);
end
$$;
comment on function duragraph.get_item(integer, jsonb) is
  'An item, or null: {namespace, key, refresh_ttl?}. One that expires begins its time anew unless refresh_ttl is false.';
