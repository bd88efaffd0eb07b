create or replace function duragraph.write_channel(
  p_thread duragraph.threads, p_checkpoint uuid, p_channel text, p_at uuid, p_reducer text, p_value json
)
returns void
language plpgsql
as $$
declare
  v_old json := case
    when p_at is not null and coalesce(p_reducer, 'replace') <> 'replace'
      then nullif(
        duragraph.channel_value(p_thread.shard, p_thread.tenant_id, p_thread.thread_id, '', p_channel, p_at), 'null'
      )::json
  end;
  v_new json := p_value;
  v_appends boolean := p_reducer = 'append' or (p_reducer = 'add' and json_typeof(p_value) = 'array');
begin
  if coalesce(p_reducer, 'replace') not in ('replace', 'append', 'add', 'merge', 'messages') then
    raise exception using
      errcode = 'DG422',
      message = 'Channel ''' || p_channel || ''' is reduced by the graph''s code (' || p_reducer || '), which only a worker has.',
      detail = json_build_object('code', 'worker_needed', 'field', 'values.' || p_channel)::text;
  end if;
  if p_reducer = 'messages' then
    select m.appends, m.value into v_appends, v_new from duragraph.merge_messages(v_old, p_value) m;
  elsif v_appends then
    v_new := case when json_typeof(p_value) = 'array' then p_value else json_build_array(p_value) end;
  elsif coalesce(p_reducer, 'replace') <> 'replace' then
    v_new := duragraph.reduce_value(p_channel, p_reducer, v_old, p_value);
  end if;
  if v_appends and v_old is not null then
    if json_typeof(v_old) <> 'array' then
      perform duragraph.reduce_value(p_channel, p_reducer, v_old, v_new);
    end if;
    insert into duragraph.channel_values as v
      (shard, tenant_id, thread_id, checkpoint_ns, channel, checkpoint_id, base_checkpoint_id, value)
    values (p_thread.shard, p_thread.tenant_id, p_thread.thread_id, '', p_channel, p_checkpoint, p_at, v_new)
    on conflict on constraint channel_values_pkey do update
    set value = (
      select json_agg(e.value order by e.part, e.n)
      from (
        select o.value, 1 as part, o.n from json_array_elements(v.value) with ordinality o (value, n)
        union all
        select a.value, 2, a.n from json_array_elements(excluded.value) with ordinality a (value, n)
      ) e
    );
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
