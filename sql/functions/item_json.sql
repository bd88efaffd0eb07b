create or replace function duragraph.item_json(p_item duragraph.store_items)
returns jsonb
language sql
stable
as $$
  select jsonb_build_object(
    'namespace', p_item.namespace, 'key', p_item.key, 'value', p_item.value,
    'created_at', duragraph.iso(p_item.created_at), 'updated_at', duragraph.iso(p_item.updated_at)
  )
$$;
comment on function duragraph.item_json(duragraph.store_items) is 'An item as the API shows it.';
