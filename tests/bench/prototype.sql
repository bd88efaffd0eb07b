-- The hot path as a prototype had it before the engine was written: what the engine's speed is held against.
create schema prototype;

-- History: written at the start, once more at the end.
create table prototype.runs (
  run_id uuid primary key, thread_id uuid, graph integer not null, status smallint not null default 0,
  attempt smallint not null default 0, input jsonb, output jsonb,
  created_at timestamptz not null default now(), started_at timestamptz, ended_at timestamptz
) with (fillfactor = 85);

-- Only runs that a worker may start now: inserted, then deleted.
create sequence prototype.queue_order cache 1;
create table prototype.ready (
  graph integer not null, priority smallint not null default 0, ord bigint not null default nextval('prototype.queue_order'),
  run_id uuid not null, thread_id uuid, attempt smallint not null default 0, last_seq integer not null default 0, input jsonb
) with (fillfactor = 100, autovacuum_vacuum_scale_factor = 0.01, autovacuum_vacuum_threshold = 500,
        autovacuum_vacuum_cost_delay = 0, autovacuum_vacuum_insert_scale_factor = 100);
create index ready_claim on prototype.ready (graph, priority, ord);

-- One narrow row a running run: fence, liveness, event counter.
create sequence prototype.lease_token cache 1;
create table prototype.leases (
  run_id uuid primary key, token bigint not null default nextval('prototype.lease_token'), worker integer not null,
  graph integer not null, thread_id uuid, attempt smallint not null, last_seq integer not null default 0,
  claimed_at timestamptz not null default now(), expires_at timestamptz not null
) with (fillfactor = 50, autovacuum_vacuum_scale_factor = 0.01, autovacuum_vacuum_threshold = 500, autovacuum_vacuum_cost_delay = 0);

-- A thread with an active run, and the line behind it.
create table prototype.slots (thread_id uuid primary key, active uuid not null, waiting integer not null default 0) with (fillfactor = 50);
create table prototype.waiting (
  thread_id uuid not null, ord bigint not null default nextval('prototype.queue_order'), run_id uuid not null,
  graph integer not null, priority smallint not null, input jsonb, primary key (thread_id, ord)
);

create function prototype.enqueue(p_ids uuid[], p_threads uuid[], p_graph integer, p_priority smallint, p_inputs jsonb[])
returns void language plpgsql set enable_seqscan = off set jit = off as $$
begin
  insert into prototype.runs (run_id, thread_id, graph, input)
    select i, t, p_graph, j from unnest(p_ids, p_threads, p_inputs) u(i, t, j);
  if p_threads[1] is null then
    insert into prototype.ready (graph, priority, run_id, input)
      select p_graph, p_priority, i, j from unnest(p_ids, p_inputs) u(i, j);
  else
    with s as (
      insert into prototype.slots (thread_id, active)
        select t, i from unnest(p_ids, p_threads) u(i, t) order by t
      on conflict (thread_id) do update set waiting = prototype.slots.waiting + 1
      returning thread_id, active),
    r as (
      insert into prototype.ready (graph, priority, run_id, thread_id, input)
        select p_graph, p_priority, i, t, j from unnest(p_ids, p_threads, p_inputs) u(i, t, j)
        join s on s.thread_id = u.t and s.active = u.i)
    insert into prototype.waiting (thread_id, run_id, graph, priority, input)
      select t, i, p_graph, p_priority, j from unnest(p_ids, p_threads, p_inputs) u(i, t, j)
      join s on s.thread_id = u.t and s.active <> u.i;
  end if;
end $$;

create function prototype.claim(p_worker integer, p_graphs integer[], p_limit integer, p_ttl interval)
returns table (run_id uuid, token bigint, graph integer, thread_id uuid, attempt smallint, last_seq integer, input jsonb)
language sql set enable_seqscan = off set jit = off as $$
  with pick as materialized (
    select p.c from unnest(p_graphs) g(graph), lateral (
      select r.ctid as c from prototype.ready r where r.graph = g.graph
      order by r.priority, r.ord limit p_limit for update skip locked) p
    limit p_limit),
  d as (delete from prototype.ready r where r.ctid = any(array(select c from pick)) returning r.*),
  t as materialized (select d.*, nextval('prototype.lease_token') as token from d),
  l as (
    insert into prototype.leases (run_id, token, worker, graph, thread_id, attempt, last_seq, expires_at)
      select t.run_id, t.token, p_worker, t.graph, t.thread_id, t.attempt + 1, t.last_seq, now() + p_ttl from t)
  select t.run_id, t.token, t.graph, t.thread_id, (t.attempt + 1)::smallint, t.last_seq, t.input from t
$$;

create function prototype.complete(p_ids uuid[], p_tokens bigint[], p_status smallint[], p_outputs jsonb[])
returns integer language plpgsql set enable_seqscan = off set jit = off as $$
declare
  v_done uuid[];
  v_threads uuid[];
begin
  with l as (
    delete from prototype.leases x using unnest(p_ids, p_tokens, p_status, p_outputs) u(i, k, s, o)
      where x.run_id = u.i and x.token = u.k
      returning x.run_id, x.thread_id, x.claimed_at, x.attempt, u.s, u.o),
  r as (
    update prototype.runs r set status = l.s, output = l.o, attempt = l.attempt, started_at = l.claimed_at, ended_at = now()
      from l where r.run_id = l.run_id)
  select array_agg(l.run_id), array_agg(l.thread_id) filter (where l.thread_id is not null) into v_done, v_threads from l;
  if v_threads is not null then
    perform 1 from prototype.slots s where s.thread_id = any(v_threads) order by s.thread_id for update;
    with head as materialized (
      select s.thread_id, w.ord from prototype.slots s, lateral (
        select w.ord from prototype.waiting w where w.thread_id = s.thread_id order by w.ord limit 1) w
      where s.thread_id = any(v_threads) and s.waiting > 0),
    w as (delete from prototype.waiting w using head where w.thread_id = head.thread_id and w.ord = head.ord returning w.*),
    q as (
      insert into prototype.ready (graph, priority, run_id, thread_id, input)
        select graph, priority, run_id, thread_id, input from w)
    update prototype.slots s set active = w.run_id, waiting = s.waiting - 1 from w where s.thread_id = w.thread_id;
    delete from prototype.slots s where s.thread_id = any(v_threads) and s.active = any(v_done);
  end if;
  return coalesce(cardinality(v_done), 0);
end $$;
