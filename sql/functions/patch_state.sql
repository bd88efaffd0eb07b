create or replace function duragraph.patch_state(p_tenant integer, p_thread uuid, p_request jsonb)
returns void
language plpgsql
as $$
declare
  v_metadata jsonb := coalesce(nullif(p_request -> 'metadata', 'null'), '{}');
begin
  update duragraph.threads t
  set
    metadata = t.metadata || v_metadata,
    config = t.config || jsonb_build_object('metadata', coalesce(nullif(t.config -> 'metadata', 'null'), '{}') || v_metadata),
    updated_at = duragraph.current_time()
  where t.shard = duragraph.shard_of(p_thread) and t.tenant_id = p_tenant and t.thread_id = p_thread;
  if not found then
    perform duragraph.find_thread(p_tenant, p_thread);
  end if;
end
$$;
comment on function duragraph.patch_state(integer, uuid, jsonb) is
  'Merges {metadata} into the thread''s metadata and into that of its config, at the top level; its values stay as they are.';
