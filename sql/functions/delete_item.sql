create or replace function duragraph.delete_item(p_tenant integer, p_op jsonb)
returns json
language plpgsql
set enable_seqscan = off
set jit = off
as $$
declare
  v_namespace text[] := duragraph.namespace_of(p_op, 'namespace', true);
  v_key text := duragraph.item_key(p_op, v_namespace);
begin
  delete from duragraph.store_items i
  where i.tenant_id = p_tenant and i.namespace = v_namespace and i.key = v_key;
  if found then
    perform duragraph.forget_vectors(p_tenant, v_namespace, v_key);
  end if;
  return null;
end
$$;
comment on function duragraph.delete_item(integer, jsonb) is 'Deletes an item, if it is there, and its vectors: {namespace, key}.';
