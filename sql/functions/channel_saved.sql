create or replace function duragraph.channel_saved(
  p_shard smallint, p_tenant integer, p_thread uuid, p_ns text, p_channel text, p_checkpoint uuid) returns text
language sql stable
set enable_seqscan = off set jit = off as $$
  with recursive chain as (
    select v.saved::text as saved, v.base_checkpoint_id, 1 as n
    from duragraph.channel_values v
    where v.shard = p_shard and v.tenant_id = p_tenant and v.thread_id = p_thread and v.checkpoint_ns = p_ns
      and v.channel = p_channel and v.checkpoint_id = p_checkpoint
    union all
    select v.saved::text, v.base_checkpoint_id, c.n + 1
    from chain c, duragraph.channel_values v
    where v.shard = p_shard and v.tenant_id = p_tenant and v.thread_id = p_thread and v.checkpoint_ns = p_ns
      and v.channel = p_channel and v.checkpoint_id = c.base_checkpoint_id)
  select case when count(*) <= 1 then min(saved)
    else '[' || coalesce(string_agg(x.items, ',' order by n desc) filter (where btrim(x.items, E' \t\r\n') <> ''), '') || ']' end
  from chain, lateral (select case when left(saved, 1) = '[' then substr(saved, 2, greatest(length(saved) - 2, 0)) else saved end as items) x
$$;
comment on function duragraph.channel_saved(smallint, integer, uuid, text, text, uuid) is
  'JSON text of what a hosted graph saved for a channel at one checkpoint, put together as channel_value() does; null when it saved nothing.';
