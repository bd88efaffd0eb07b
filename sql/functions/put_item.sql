create or replace function duragraph.put_item(p_tenant integer, p_op jsonb)
returns json
language plpgsql
as $$
declare
  v_now timestamptz := duragraph.current_time();
  v_namespace text[] := duragraph.namespace_of(p_op, 'namespace', true);
  v_key text := duragraph.item_key(p_op, v_namespace);
  v_ttl double precision := duragraph.item_ttl(p_op);
  v_index jsonb := case when coalesce(p_op -> 'index', 'null') <> 'null' then duragraph.item_index(p_op) end;
  v_is_new boolean;
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
  insert into duragraph.store_items as i (tenant_id, namespace, key, value, ttl, expires_at, index_paths, created_at, updated_at)
  values (p_tenant, v_namespace, v_key, v_value, v_ttl, v_now + v_ttl * interval '1 minute', v_index, v_now, v_now)
  on conflict on constraint store_items_pkey do update set
    value = excluded.value, ttl = excluded.ttl, expires_at = excluded.expires_at, index_paths = excluded.index_paths,
    created_at = case when i.expires_at <= v_now then v_now else i.created_at end,
    -- Never the same for two values: it is what vectors are told by.
    updated_at = greatest(i.updated_at + interval '1 microsecond', v_now)
  -- Only a row that replaced another, and was locked for it, has a transaction there.
  returning i.xmax = 0 into v_is_new;
  if not v_is_new then
    perform duragraph.forget_vectors(p_tenant, v_namespace, v_key);
  end if;
  return null;
end
$$;
comment on function duragraph.put_item(integer, jsonb) is
  'Writes an item, whole: {namespace, key, value, ttl? (minutes), index? (false, or the paths to index)}. Of one that is there created_at stays; its vectors go. A null value deletes.';
