create or replace function duragraph.put_item(p_tenant integer, p_op jsonb)
returns json
language plpgsql
as $$
declare
  v_now timestamptz := duragraph.current_time();
  v_namespace text[] := duragraph.namespace_of(p_op, 'namespace', true);
  v_key text := duragraph.item_key(p_op, v_namespace);
  v_ttl double precision := duragraph.item_ttl(p_op);
  v_value jsonb := coalesce(p_op -> 'value', 'null');
begin
  if v_namespace[1] = 'langgraph' then
    raise exception using
      errcode = 'DG422',
      message = 'namespace: its root cannot be "langgraph".',
      hint = 'LangGraph keeps it for itself; choose another name.',
      detail = '{"code":"invalid_namespace","field":"namespace"}';
  end if;
  if v_value = 'null' then
    return duragraph.delete_item(p_tenant, p_op);
  end if;
  if jsonb_typeof(v_value) <> 'object' then
    raise exception using
      errcode = 'DG422',
      message = 'value must be an object.',
      hint = 'Wrap it: {"value": ...}. With null the item is deleted.',
      detail = '{"code":"invalid_value","field":"value"}';
  end if;
  insert into duragraph.store_items as i (tenant_id, namespace, key, value, ttl, expires_at, created_at, updated_at)
  values (p_tenant, v_namespace, v_key, v_value, v_ttl, v_now + v_ttl * interval '1 minute', v_now, v_now)
  on conflict on constraint store_items_pkey do update set
    value = excluded.value, ttl = excluded.ttl, expires_at = excluded.expires_at,
    created_at = case when i.expires_at <= v_now then v_now else i.created_at end,
    updated_at = greatest(i.updated_at, v_now);
  return null;
end
$$;
comment on function duragraph.put_item(integer, jsonb) is
  'Writes an item, whole: {namespace, key, value, ttl? (minutes), index? (taken, and of no effect)}. Of one that is there created_at stays. A null value deletes.';
