create or replace function duragraph.append_events(p_writes json) returns json
language plpgsql
set enable_seqscan = off set enable_hashjoin = off set enable_mergejoin = off set jit = off as $$
declare
  v_now timestamptz := duragraph.current_time();
  v_done bigint[];
begin
  with w as materialized (
    select duragraph.shard_of(x.run_id) as shard, x.*, coalesce(json_array_length(x.events), 0) as n
    from json_to_recordset(p_writes) as x(run_id uuid, token bigint, write_no integer, checkpoint_id uuid, events json)
    order by 1, x.run_id),
  l as (
    update duragraph.leases l set last_seq = l.last_seq + w.n, last_write = w.write_no, checkpoint_id = coalesce(w.checkpoint_id, l.checkpoint_id),
        expires_at = greatest(l.expires_at, v_now + make_interval(secs => l.lease_seconds))
      from w where l.shard = any(array[w.shard]) and l.run_id = w.run_id and l.token = w.token and l.last_write < w.write_no
    returning l.shard, l.run_id, l.token, l.tenant_id, l.last_seq - w.n as base, w.events),
  e as (
    insert into duragraph.events (shard, run_id, seq, tenant_id, at, event, checkpoint_id, data)
      select l.shard, l.run_id, l.base + v.n, l.tenant_id, v_now, v.event, v.checkpoint_id, v.data
      from l, rows from (json_to_recordset(l.events) as (event text, checkpoint_id uuid, data json)) with ordinality as v(event, checkpoint_id, data, n))
  select coalesce(array_agg(l.token), '{}') into v_done from l;
  return duragraph.write_results(p_writes, v_done, false);
end $$;
comment on function duragraph.append_events(json) is
  'Appends events of many runs in one commit: one HOT update of each lease fences, renews and numbers. [{run_id, token, write_no, events: [{event, data}]}].';
