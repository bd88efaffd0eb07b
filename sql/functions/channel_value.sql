create or replace function duragraph.channel_value(
  p_shard smallint, p_tenant integer, p_thread uuid, p_ns text, p_channel text, p_checkpoint uuid) returns text
language sql stable
set enable_seqscan = off set jit = off as $$
  with recursive chain as (
    select v.value::text as value, v.base_checkpoint_id, 1 as n
    from duragraph.channel_values v
    where v.shard = p_shard and v.tenant_id = p_tenant and v.thread_id = p_thread and v.checkpoint_ns = p_ns
      and v.channel = p_channel and v.checkpoint_id = p_checkpoint
    union all
    select v.value::text, v.base_checkpoint_id, c.n + 1
    from chain c, duragraph.channel_values v
    where v.shard = p_shard and v.tenant_id = p_tenant and v.thread_id = p_thread and v.checkpoint_ns = p_ns
      and v.channel = p_channel and v.checkpoint_id = c.base_checkpoint_id)
  select case when count(*) <= 1 then min(value)
    else '[' || coalesce(string_agg(x.items, ',' order by n desc) filter (where btrim(x.items, E' \t\r\n') <> ''), '') || ']' end
  -- Something that is no list, under a list that was added to, counts as its first item.
  from chain, lateral (select case when left(value, 1) = '[' then substr(value, 2, greatest(length(value) - 2, 0)) else value end as items) x
$$;
comment on function duragraph.channel_value(smallint, integer, uuid, text, text, uuid) is 'JSON text of a channel as one checkpoint wrote it: the whole, or the list put together from what was added since.';
