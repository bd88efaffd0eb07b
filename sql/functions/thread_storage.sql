create or replace function duragraph.thread_storage(p_tenant integer, p_thread uuid)
returns json
language sql
stable
set enable_seqscan = off set jit = off
as $$
  with thread as (
    select (duragraph.find_thread(p_tenant, p_thread)).*
  ),
  c as (
    select count(*) as n,
      coalesce(sum(pg_column_size(c.channels) + pg_column_size(c.tasks) + pg_column_size(c.metadata) + pg_column_size(c.next)
      + coalesce(pg_column_size(c.saved), 0)), 0) as bytes
    from thread t, duragraph.checkpoints c
    where c.shard = t.shard and c.tenant_id = t.tenant_id and c.thread_id = t.thread_id
  ),
  v as (
    select v.channel, count(*) as n, sum(pg_column_size(v.value) + coalesce(pg_column_size(v.saved), 0)) as bytes
    from thread t, duragraph.channel_values v
    where v.shard = t.shard and v.tenant_id = t.tenant_id and v.thread_id = t.thread_id and left(v.channel, 2) <> '__'
    group by v.channel
  ),
  w as (
    select count(*) as n, coalesce(sum(x.bytes), 0) as bytes
    from (
      select coalesce(pg_column_size(s.result), 0) + coalesce(pg_column_size(s.details), 0) as bytes
      from thread t, duragraph.steps s
      where s.shard = t.shard and s.tenant_id = t.tenant_id and s.thread_id = t.thread_id
      union all
      select coalesce(pg_column_size(i.value), 0) + coalesce(pg_column_size(i.answer), 0)
      from thread t, duragraph.interrupts i
      where i.shard = t.shard and i.tenant_id = t.tenant_id and i.thread_id = t.thread_id
      union all
      select pg_column_size(p.saved)
      from thread t, duragraph.checkpoint_writes p
      where p.shard = t.shard and p.tenant_id = t.tenant_id and p.thread_id = t.thread_id
    ) x
  ),
  total as (
    select coalesce(sum(v.n), 0) as n, coalesce(sum(v.bytes), 0) as bytes,
      coalesce(json_object_agg(v.channel, json_build_object('versions', v.n, 'bytes', v.bytes) order by v.channel), '{}') as channels
    from v
  )
  select json_build_object(
    'thread_id', p_thread,
    'total_bytes', c.bytes + total.bytes + w.bytes,
    'checkpoints', json_build_object('count', c.n, 'bytes', c.bytes),
    'channel_values', json_build_object('count', total.n, 'bytes', total.bytes, 'by_channel', total.channels),
    'pending_writes', json_build_object('count', w.n, 'bytes', w.bytes)
  )
  from c, total, w
$$;
comment on function duragraph.thread_storage(integer, uuid) is
  'Bytes of a thread''s state as stored: checkpoints, channel values (with those of each channel), and what nodes gave and asked (pending_writes). 404 without the thread.';
