create or replace function duragraph.thread_start(
  p_tenant integer, p_thread uuid, p_ms bigint default null, p_at timestamptz default null
)
returns timestamptz
language sql
stable
set enable_seqscan = off set jit = off as $$
  select coalesce(
    (
      select e.began_at from duragraph.thread_entries(p_tenant, p_thread, p_limit => null) e
      where case
        when p_ms is not null
          then e.entry_id >= duragraph.uuid_at(to_timestamp(p_ms / 1000.0)) and e.entry_id < duragraph.uuid_at(to_timestamp((p_ms + 1) / 1000.0))
        when p_at is not null then e.began_at <= p_at
        else e.status in ('running', 'pending')
      end
      order by e.began_at desc, e.entry_id desc limit 1
    ),
    to_timestamp(p_ms / 1000.0), p_at, duragraph.current_time()
  )
$$;
comment on function duragraph.thread_start(integer, uuid, bigint, timestamptz) is
  'Where in thread_entries() a reader begins: at the entry whose id was made in that millisecond, at the last that began by p_at, or, without either, at the run in progress.
When there is none: at that time, or now. 404 for an unknown thread.';
