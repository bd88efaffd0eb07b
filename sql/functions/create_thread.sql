create or replace function duragraph.create_thread(p_tenant integer, p_request json)
returns json
language plpgsql
as $$
declare
  v_now timestamptz := duragraph.current_time();
  v_id uuid := coalesce((p_request ->> 'thread_id')::uuid, duragraph.make_id());
  v_ttl jsonb := nullif((p_request -> 'ttl')::jsonb, 'null') || jsonb_build_object(
    'strategy', coalesce(p_request -> 'ttl' ->> 'strategy', 'delete')
  );
  v_metadata jsonb := coalesce(nullif((p_request -> 'metadata')::jsonb, 'null'), '{}') || case
    when p_request ->> 'graph_id' is not null then jsonb_build_object('graph_id', p_request ->> 'graph_id')
    else '{}'
  end;
  v_thread duragraph.threads;
begin
  insert into duragraph.threads as t
    (shard, tenant_id, thread_id, metadata, ttl, expires_at, created_at, updated_at, state_updated_at)
  values (
    duragraph.shard_of(v_id), p_tenant, v_id, v_metadata, v_ttl, duragraph.expiry_of(v_ttl), v_now, v_now, v_now
  )
  on conflict do nothing
  returning * into v_thread;
  if found then
    if coalesce(json_typeof(p_request -> 'supersteps'), 'null') <> 'null' then
      v_thread := duragraph.replay_supersteps(v_thread, p_request -> 'supersteps');
    end if;
    return duragraph.thread_json(v_thread);
  end if;
  if p_request ->> 'if_exists' = 'do_nothing' then
    return duragraph.get_thread(p_tenant, v_id);
  end if;
  raise exception using
    errcode = 'DG409',
    message = 'Thread with ID ' || v_id || ' already exists.',
    hint = 'Leave thread_id out, or send if_exists: do_nothing to get the present one.',
    detail = '{"code":"thread_exists","field":"thread_id"}';
end
$$;
comment on function duragraph.create_thread(integer, json) is
  'Makes a thread from {thread_id?, metadata?, ttl?, if_exists?, graph_id?, supersteps?}; supersteps build its history.';
