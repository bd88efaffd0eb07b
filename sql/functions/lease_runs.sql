create or replace function duragraph.lease_runs(p_worker_key integer, p_limit integer, p_marks jsonb default '{}',
  out runs text, out given integer, out marks jsonb, out next_due double precision)
language plpgsql
set enable_seqscan = off set enable_bitmapscan = off set enable_sort = off set enable_hashjoin = off set enable_mergejoin = off set jit = off as $$
declare
  v_worker duragraph.workers;
  v_now timestamptz := duragraph.current_time();
  v_due timestamptz := (select min(s.due_at) from duragraph.scheduled s);
begin
  select w.* into v_worker from duragraph.workers w where w.worker_key = p_worker_key;
  if not found then
    raise exception using errcode = 'DG404', message = format('No worker %s is registered.', p_worker_key),
      hint = 'Register again.', detail = '{"code": "worker_not_found"}';
  end if;
  if v_due <= v_now then
    perform duragraph.promote_due(1000);
    v_due := (select min(s.due_at) from duragraph.scheduled s);
  end if;
  -- A run whose creator committed late may lie behind the marks: now and then look from the start.
  if coalesce((p_marks ->> '0')::double precision, 0) < extract(epoch from v_now) - 1 then
    p_marks := jsonb_build_object('0', extract(epoch from v_now));
  end if;
  if v_worker.status = 'active' and p_limit > 0 then
    with pick as materialized (
      -- From the low-water mark on, and everything of a higher priority: never a walk over dead rows.
      select p.ctid from (
          select k, coalesce((p_marks ->> k::text)::bigint, 0) as mark from unnest(v_worker.graph_keys) k order by random()) g,
        lateral (
          select * from (select r.ctid from duragraph.ready r where r.graph_key = g.k and r.ord < (g.mark >> 47) << 47
            order by r.ord limit p_limit for update skip locked) higher
          union all
          select * from (select r.ctid from duragraph.ready r where r.graph_key = g.k and r.ord >= g.mark
            order by r.ord limit p_limit for update skip locked) rest
          limit p_limit) p
      limit p_limit),
    d as (delete from duragraph.ready r where r.ctid = any(array(select pick.ctid from pick)) returning r.*),
    t as materialized (
      select d.*, nextval('duragraph.lease_token') as token, r.thread_id, r.temporary, r.checkpoint_id, r.assistant_id, r.max_attempts,
        r.kwargs, r.metadata,
        coalesce(r.checkpoint_id, r.start_checkpoint_id, case when not r.temporary then (
          select h.checkpoint_id from duragraph.threads h where h.shard = r.shard and h.tenant_id = r.tenant_id and h.thread_id = r.thread_id)
          end) as start_id
      from d, lateral (select r.* from duragraph.runs r where r.shard = d.shard and r.run_id = d.run_id offset 0) r),
    l as (
      insert into duragraph.leases (shard, run_id, token, worker_key, tenant_id, graph_key, thread_id, temporary, attempt, last_seq,
          checkpoint_id, started, lease_seconds, claimed_at, expires_at)
        select t.shard, t.run_id, t.token, p_worker_key, t.tenant_id, t.graph_key, t.thread_id, t.temporary, t.attempt + 1,
          t.last_seq + (t.attempt > 0)::integer, t.checkpoint_id, v_worker.protocol > 1, v_worker.lease_seconds, v_now,
          v_now + make_interval(secs => v_worker.lease_seconds)
        from t),
    e as (
      insert into duragraph.events (shard, run_id, seq, tenant_id, at, event, data)
        select t.shard, t.run_id, t.last_seq + 1, t.tenant_id, v_now, 'metadata',
          json_build_object('run_id', t.run_id, 'attempt', t.attempt + 1)
        from t where t.attempt > 0)
    select count(*), string_agg(concat('{"run_id":"', t.run_id, '","token":', t.token, ',"attempt":', t.attempt + 1, ',"max_attempts":', t.max_attempts,
        ',"thread_id":"', t.thread_id, '","temporary":', case when t.temporary then 'true' else 'false' end, ',"assistant_id":"', t.assistant_id,
        '","graph_id":', t.metadata -> 'graph_id', ',"last_seq":', t.last_seq + (t.attempt > 0)::integer, ',"kwargs":', t.kwargs,
        ',"metadata":', t.metadata,
        case when t.checkpoint_id is null then ',"resumed":false' else ',"resumed":true' end,
        ',"checkpoint":', coalesce(case when t.start_id is not null
          then duragraph.checkpoint_document(t.shard, t.tenant_id, t.thread_id, t.start_id) end, 'null'),
        ',"journal":', coalesce(case when t.start_id is not null
          then duragraph.checkpoint_journal(t.shard, t.tenant_id, t.thread_id, t.start_id) end, '[]'), '}'), ','),
      p_marks || coalesce((select jsonb_object_agg(m.graph_key, m.ord) from (
        select t2.graph_key, min(t2.ord) as ord from t t2 group by t2.graph_key) m), '{}')
    into given, runs, marks from t;
    if given = 0 and p_marks - '0' <> '{}' then
      select x.runs, x.given, x.marks into runs, given, marks from duragraph.lease_runs(p_worker_key, p_limit, '{}') x;
      next_due := extract(epoch from v_due - v_now);
      return;
    end if;
  end if;
  runs := concat('[', runs, ']');
  given := coalesce(given, 0);
  marks := coalesce(marks, '{}');
  next_due := extract(epoch from v_due - v_now);
end $$;
comment on function duragraph.lease_runs(integer, integer, jsonb) is
  'The parts of claim_runs(), for callers that pass them on: runs is the text of a JSON array, not parsed again here.';
