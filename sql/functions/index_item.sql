create or replace function duragraph.index_item(p_tenant integer, p_op jsonb)
returns json
language plpgsql
set enable_seqscan = off
set jit = off
as $$
declare
  v_namespace text[] := duragraph.namespace_of(p_op, 'namespace', true);
  v_key text := duragraph.item_key(p_op, v_namespace);
  v_vectors jsonb := coalesce(p_op -> 'vectors', 'null');
begin
  if jsonb_typeof(v_vectors) <> 'array' or exists (
    select from jsonb_array_elements(v_vectors) v where jsonb_typeof(v -> 'path') is distinct from 'string' or octet_length(v ->> 'path') > 500
  ) then
    raise exception using
      errcode = 'DG422',
      message = 'vectors must be a list of {path, vector}.',
      detail = '{"code":"invalid_vectors","field":"vectors"}';
  end if;
  -- Held: a value that comes now waits, and then takes the vectors of this one away.
  perform from duragraph.store_items i
  where i.tenant_id = p_tenant and i.namespace = v_namespace and i.key = v_key and i.updated_at = (p_op ->> 'updated_at')::timestamptz
  for share;
  if not found then
    return 'false';
  end if;
  perform duragraph.forget_vectors(p_tenant, v_namespace, v_key);
  insert into duragraph.store_vectors (tenant_id, namespace, key, path, vector)
  select p_tenant, v_namespace, v_key, v ->> 'path', duragraph.unit_vector(v -> 'vector') from jsonb_array_elements(v_vectors) v;
  return 'true';
end
$$;
comment on function duragraph.index_item(integer, jsonb) is
  'Writes the vectors of an item, all of them: {namespace, key, updated_at, vectors: [{path, vector}]}. False, and nothing is written, where the item is gone or has another value since.';
