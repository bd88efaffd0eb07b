create or replace function duragraph.item_to_index(p_item duragraph.store_items)
returns jsonb
language sql
stable
as $$
  select jsonb_strip_nulls(jsonb_build_object(
    'namespace', p_item.namespace, 'key', p_item.key, 'updated_at', duragraph.iso(p_item.updated_at), 'fields', p_item.index_paths
  ))
$$;
comment on function duragraph.item_to_index(duragraph.store_items) is
  'What the embedder is told of an item: {namespace, key, updated_at, fields?}. It reads the value itself, and only while it is still of that time.';
