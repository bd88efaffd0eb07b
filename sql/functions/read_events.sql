create or replace function duragraph.read_events(p_cursors json)
returns table (run_id uuid, status text, last_seq integer, frames text)
language sql stable
set enable_seqscan = off set enable_hashjoin = off set enable_mergejoin = off set jit = off as $$
  select r.run_id,
    case when r.status <> 'pending' then r.status when l.run_id is not null then 'running' else 'pending' end,
    coalesce(l.last_seq, r.last_seq),
    (select string_agg(e.seq || chr(31) || e.event || chr(31) || translate(case when e.checkpoint_id is null then coalesce(e.data::text, 'null')
          else duragraph.overlay_json(duragraph.checkpoint_values(r.shard, r.tenant_id, r.thread_id, '', e.checkpoint_id)::text, e.data::text) end,
        E'\r\n', '  '), chr(30) order by e.seq)
      from (select e.* from duragraph.events e where e.shard = r.shard and e.run_id = r.run_id and e.seq > c.after
        order by e.seq limit coalesce(c."limit", 1000)) e)
  from json_to_recordset(p_cursors) as c(run_id uuid, after integer, "limit" integer)
  join lateral (select r.* from duragraph.runs r where r.shard = duragraph.shard_of(c.run_id) and r.run_id = c.run_id offset 0) r on true
  left join lateral (select l.* from duragraph.leases l where l.shard = r.shard and l.run_id = r.run_id offset 0) l on true
$$;
comment on function duragraph.read_events(json) is
  'Events after a cursor for many runs: [{run_id, after, limit}]. frames: "seq US event US data" joined by RS (chr 31, chr 30); null when nothing is new. A terminal status means nothing follows last_seq.';
