create or replace function duragraph.checkpoint_values(
  p_shard smallint, p_tenant integer, p_thread uuid, p_ns text, p_checkpoint uuid) returns json
language sql stable
set enable_seqscan = off set jit = off as $$
  select case when c.channels ? '__root__'
    then duragraph.channel_value(p_shard, p_tenant, p_thread, p_ns, '__root__', (c.channels ->> '__root__')::uuid)::json
    else coalesce('{' || (
      select string_agg(to_json(k.key)::text || ':'
        || duragraph.channel_value(p_shard, p_tenant, p_thread, p_ns, k.key, k.value::uuid), ',')
      from jsonb_each_text(c.channels) k where left(k.key, 2) <> '__') || '}', '{}')::json end
  from duragraph.checkpoints c
  where c.shard = p_shard and c.tenant_id = p_tenant and c.thread_id = p_thread and c.checkpoint_ns = p_ns
    and c.checkpoint_id = p_checkpoint
$$;
comment on function duragraph.checkpoint_values(smallint, integer, uuid, text, uuid) is 'The state at a checkpoint as one JSON object; null when there is no such checkpoint. Channels that begin with __ are the engine''s own and not shown; but __root__ is the whole state, where that is no object.';
