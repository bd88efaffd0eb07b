create or replace function duragraph.append_value(
  p_thread duragraph.threads, p_checkpoint uuid, p_channel text, p_at uuid, p_type text, p_added json
)
returns void
language plpgsql
as $$
begin
  if p_type <> 'array' then
    perform duragraph.reduce_value(p_channel, 'append', p_type, null, p_added);
  end if;
  insert into duragraph.channel_values as v
    (shard, tenant_id, thread_id, checkpoint_ns, channel, checkpoint_id, base_checkpoint_id, value)
  values (p_thread.shard, p_thread.tenant_id, p_thread.thread_id, '', p_channel, p_checkpoint, p_at, p_added)
  on conflict on constraint channel_values_pkey do update
  set value = (
    select json_agg(e.value order by e.part, e.n)
    from (
      select o.value, 1 as part, o.n from json_array_elements(v.value) with ordinality o (value, n)
      union all
      select a.value, 2, a.n from json_array_elements(excluded.value) with ordinality a (value, n)
    ) e
  );
end
$$;
comment on function duragraph.append_value(duragraph.threads, uuid, text, uuid, text, json) is
  'Adds to the list that a channel holds at p_at (of type p_type there), storing only what is added.';
