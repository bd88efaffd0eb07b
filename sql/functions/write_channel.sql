create or replace function duragraph.write_channel(
  p_thread duragraph.threads, p_checkpoint uuid, p_channel text, p_at uuid, p_reducer text, p_value json
)
returns void
language plpgsql
as $$
declare
  v_reducer text := coalesce(p_reducer, 'replace');
  v_appends boolean := v_reducer = 'append' or (v_reducer = 'add' and json_typeof(p_value) = 'array');
  v_type text;
  v_old json;
  v_new json := p_value;
begin
  if v_reducer not in ('replace', 'append', 'add', 'merge', 'messages') then
    raise exception using
      errcode = 'DG422',
      message = 'Channel ''' || p_channel || ''' is reduced by the graph''s code (' || p_reducer || '), which only a worker has.',
      detail = json_build_object('code', 'worker_needed', 'field', 'values.' || p_channel)::text;
  end if;
  -- The row alone tells the type, however long the list is that it is added to.
  select json_typeof(v.value) into v_type
  from duragraph.channel_values v
  where v.shard = p_thread.shard and v.tenant_id = p_thread.tenant_id and v.thread_id = p_thread.thread_id
    and v.checkpoint_ns = '' and v.channel = p_channel and v.checkpoint_id = p_at and json_typeof(v.value) <> 'null';
  if v_type is not null and v_reducer <> 'replace' and not v_appends then
    v_old := duragraph.channel_value(p_thread.shard, p_thread.tenant_id, p_thread.thread_id, '', p_channel, p_at);
  end if;
  if v_reducer = 'messages' then
    select m.appends, m.value into v_appends, v_new from duragraph.merge_messages(v_old, p_value) m;
  elsif v_appends and json_typeof(p_value) <> 'array' then
    v_new := json_build_array(p_value);
  elsif v_old is not null then
    v_new := duragraph.reduce_value(p_channel, v_reducer, v_type, v_old, p_value);
  end if;
  if v_appends and v_type is not null then
    perform duragraph.append_value(p_thread, p_checkpoint, p_channel, p_at, v_type, v_new);
    return;
  end if;
  insert into duragraph.channel_values as v
    (shard, tenant_id, thread_id, checkpoint_ns, channel, checkpoint_id, value)
  values (p_thread.shard, p_thread.tenant_id, p_thread.thread_id, '', p_channel, p_checkpoint, v_new)
  on conflict on constraint channel_values_pkey do update set value = excluded.value, base_checkpoint_id = null;
end
$$;
comment on function duragraph.write_channel(duragraph.threads, uuid, text, uuid, text, json) is
  'Writes one channel of a new checkpoint through its reducer: null or replace, append, add, merge, messages.
p_at: the checkpoint that holds the channel now. Lists that only grow store what was added.';
