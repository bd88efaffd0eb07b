-- Fills a database with plausible runs, ended and queued: half of them stateless, half on a thread of their own, ids in
-- order of time, shards scattered. Called in slices: [p_from, p_to) of p_finished + p_queued runs.
create function pg_temp.id_at(p_at timestamptz, p_n bigint, p_salt text) returns uuid
language sql immutable as $$
  select (lpad(to_hex((extract(epoch from p_at) * 1000)::bigint), 12, '0') || to_hex(28672 + (p_n * 2654435761 % 4096))
    || to_hex(32768 + p_n % 16384) || substr(md5(p_salt || p_n), 1, 12))::uuid
$$;

create function pg_temp.fill(p_graphs integer[], p_from bigint, p_to bigint, p_finished bigint, p_queued bigint) returns void
language plpgsql as $$
begin
  drop table if exists fresh;
  create temporary table fresh as
    select n, (n * 2654435761 % 4096)::smallint as shard, pg_temp.id_at(at, n, 'run') as run_id,
      pg_temp.id_at(at, n, 'thread') as thread_id, p_graphs[1 + n % cardinality(p_graphs)] as graph_key,
      n % 2 = 0 as temporary, n < p_finished as ended, at,
      ((32767::bigint << 47) | nextval('duragraph.queue_order')) as ord
    from (select n, now() - interval '7 days' * (1 - n::float8 / (p_finished + p_queued)) as at
      from generate_series(p_from, p_to - 1) n) x;
  insert into duragraph.runs (shard, run_id, tenant_id, thread_id, assistant_id, graph_key, status, temporary, ord, attempt,
      last_seq, token, metadata, kwargs, worker_key, created_at, started_at, ended_at)
    select f.shard, f.run_id, 1, f.thread_id, g.assistant_id, f.graph_key, case when f.ended then 'success' else 'pending' end,
      f.temporary, f.ord, f.ended::integer, case when f.ended then 5 else 0 end, case when f.ended then f.n end,
      jsonb_build_object('graph_id', g.graph_id, 'assistant_id', g.assistant_id),
      '{"input":{"messages":[{"role":"user","content":"What does the contract say about notice?"}]},"config":{},"context":{},"command":null,"stream_mode":["values"]}',
      case when f.ended then 1 end, f.at, case when f.ended then f.at + interval '5 ms' end,
      case when f.ended then f.at + interval '5 s' end
    from fresh f join duragraph.graphs g using (graph_key);
  insert into duragraph.threads (shard, tenant_id, thread_id)
    select f.shard, 1, f.thread_id from fresh f where not f.temporary and not f.ended;
  insert into duragraph.slots (shard, tenant_id, thread_id, active_run_id)
    select f.shard, 1, f.thread_id, f.run_id from fresh f where not f.temporary and not f.ended;
  insert into duragraph.ready (graph_key, ord, shard, run_id, tenant_id)
    select f.graph_key, f.ord, f.shard, f.run_id, 1 from fresh f where not f.ended order by f.ord;
end $$;
