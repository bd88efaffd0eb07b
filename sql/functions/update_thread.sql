create or replace function duragraph.update_thread(p_tenant integer, p_thread uuid, p_request jsonb)
returns json
language plpgsql
as $$
declare
  v_thread duragraph.threads;
  v_ttl jsonb := nullif(p_request -> 'ttl', 'null') || jsonb_build_object(
    'strategy', coalesce(p_request -> 'ttl' ->> 'strategy', 'delete')
  );
begin
  update duragraph.threads t
  set
    metadata = t.metadata || coalesce(nullif(p_request -> 'metadata', 'null'), '{}'),
    ttl = coalesce(v_ttl::json, t.ttl),
    expires_at = coalesce(duragraph.expiry_of(v_ttl), t.expires_at),
    updated_at = duragraph.current_time()
  where t.shard = duragraph.shard_of(p_thread) and t.tenant_id = p_tenant and t.thread_id = p_thread
  returning * into v_thread;
  if not found then
    perform duragraph.find_thread(p_tenant, p_thread);
  end if;
  return duragraph.thread_json(v_thread);
end
$$;
comment on function duragraph.update_thread(integer, uuid, jsonb) is
  'Merges {metadata} into the thread''s at the top level and sets its {ttl}.';
