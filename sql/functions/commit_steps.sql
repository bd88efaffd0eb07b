create or replace function duragraph.commit_steps(p_writes json) returns json
language plpgsql
set enable_seqscan = off set enable_hashjoin = off set enable_mergejoin = off set jit = off as $$
declare
  v_now timestamptz := duragraph.current_time();
  v_done bigint[];
  v_ends duragraph.run_end[];
begin
  with w as materialized (
    select duragraph.shard_of(x.run_id) as shard, x.*, coalesce(json_array_length(x.events), 0) as n
    from json_to_recordset(p_writes) as x(run_id uuid, token bigint, write_no integer, checkpoint_id uuid, events json, checkpoints json,
      steps json, interrupts json, answers json, writes json, "end" json)
    order by 1, x.run_id),
  l as (
    update duragraph.leases l set last_seq = l.last_seq + w.n, last_write = w.write_no, started = true,
        checkpoint_id = coalesce(w.checkpoint_id, l.checkpoint_id), expires_at = greatest(l.expires_at, v_now + make_interval(secs => l.lease_seconds))
      from w where l.shard = any(array[w.shard]) and l.run_id = w.run_id and l.token = w.token and l.last_write < w.write_no
    returning l.shard, l.run_id, l.token, l.tenant_id, l.thread_id, l.worker_key, l.attempt, l.last_seq - w.n as base, w.events, w.checkpoints,
      w.steps, w.interrupts, w.answers, w.writes),
  e as (
    insert into duragraph.events (shard, run_id, seq, tenant_id, at, event, checkpoint_id, data)
      select l.shard, l.run_id, l.base + v.n, l.tenant_id, v_now, v.event, v.checkpoint_id, v.data
      from l, rows from (json_to_recordset(l.events) as (event text, checkpoint_id uuid, data json)) with ordinality as v(event, checkpoint_id, data, n)),
  c as materialized (
    select l.shard, l.run_id, l.tenant_id, l.thread_id, v.n, coalesce(v.ns, '') as ns, v.checkpoint_id, v.parent, v.step, v.source, v.channels,
      v.next, v.tasks, v.metadata, v.saved, (select jsonb_object_agg(k, v.checkpoint_id) from json_object_keys(v.channels) k) as changed,
      row_number() over (partition by l.run_id, coalesce(v.ns, '') order by v.n) as nth
    from l, rows from (json_to_recordset(l.checkpoints) as (checkpoint_id uuid, parent_checkpoint_id uuid, checkpoint_ns text, step integer,
        source text, channels json, next text[], tasks json, metadata jsonb, saved json))
      with ordinality as v(checkpoint_id, parent, ns, step, source, channels, next, tasks, metadata, saved, n)),
  m as materialized (
    -- The first checkpoint of a write stands on a stored parent, the others on the one before them. Without that parent there
    -- is no state to stand on: channels would be null, and the write is refused.
    select c.*, first_value(case when c.nth > 1 then null when c.parent is null then '{}' else (
          select p.channels from duragraph.checkpoints p where p.shard = c.shard and p.tenant_id = c.tenant_id and p.thread_id = c.thread_id
            and p.checkpoint_ns = c.ns and p.checkpoint_id = c.parent) end) over line as base,
      coalesce(duragraph.jsonb_merge(c.changed) over (line rows between unbounded preceding and 1 preceding), '{}') as earlier
    from c window line as (partition by c.run_id, c.ns order by c.n)),
  s as (
    insert into duragraph.checkpoints (shard, tenant_id, thread_id, checkpoint_ns, checkpoint_id, parent_checkpoint_id, run_id, step, source,
        channels, next, tasks, metadata, saved, created_at)
      select m.shard, m.tenant_id, m.thread_id, m.ns, m.checkpoint_id, m.parent, m.run_id, m.step, m.source,
        m.base || m.earlier || coalesce(m.changed, '{}'), coalesce(m.next, '{}'), coalesce(m.tasks, '[]'), coalesce(m.metadata, '{}'), m.saved, v_now
      from m),
  ch as (
    insert into duragraph.channel_values (shard, tenant_id, thread_id, checkpoint_ns, channel, checkpoint_id, base_checkpoint_id, value, saved)
      select m.shard, m.tenant_id, m.thread_id, m.ns, k.key, m.checkpoint_id,
        case when o.append is not null then ((m.base || m.earlier) ->> k.key)::uuid end, coalesce(o.append, o.set, 'null'), k.value -> 'saved'
      from m, json_each(m.channels) k, lateral (select k.value -> 'append' as append, k.value -> 'set' as set) o),
  st as (
    insert into duragraph.steps (shard, tenant_id, thread_id, checkpoint_id, task_id, step_key, run_id, kind, name, attempt, worker_key,
        started_at, ended_at, result, details)
      select l.shard, l.tenant_id, l.thread_id, v.checkpoint_id, v.task_id, coalesce(v.key, ''), l.run_id, v.kind, v.name, l.attempt, l.worker_key,
        v_now - make_interval(secs => coalesce(v.duration_ms, 0) / 1000), v_now, v.result, v.details
      from l, json_to_recordset(l.steps) as v(checkpoint_id uuid, task_id uuid, key text, kind text, name text, duration_ms double precision,
        result json, details json)),
  i as (
    insert into duragraph.interrupts (shard, tenant_id, thread_id, checkpoint_id, task_id, ordinal, interrupt_id, run_id, node, checkpoint_ns,
        value, response_schema, answered, answer, answered_at, answered_run_id)
      -- As below. What a task asks again may be another question: a task that holds a subgraph asks whatever is open in it.
      select distinct on (l.shard, l.tenant_id, l.thread_id, v.checkpoint_id, v.task_id, coalesce(v.ordinal, 0)) l.shard, l.tenant_id,
        l.thread_id, v.checkpoint_id, v.task_id, coalesce(v.ordinal, 0), v.interrupt_id, l.run_id, v.node, coalesce(v.ns, ''), v.value,
        v.response_schema, coalesce(v.answered, false), v.answer, case when v.answered then v_now end, case when v.answered then l.run_id end
      from l, rows from (json_to_recordset(l.interrupts) as (checkpoint_id uuid, task_id uuid, ordinal smallint, interrupt_id text, node text,
          checkpoint_ns text, value json, response_schema json, answered boolean, answer json))
        with ordinality as v(checkpoint_id, task_id, ordinal, interrupt_id, node, ns, value, response_schema, answered, answer, n)
      order by l.shard, l.tenant_id, l.thread_id, v.checkpoint_id, v.task_id, coalesce(v.ordinal, 0), v.n desc
    on conflict on constraint interrupts_pkey do update set interrupt_id = excluded.interrupt_id, node = excluded.node, value = excluded.value,
      response_schema = excluded.response_schema, answered = excluded.answered, answer = excluded.answer, answered_at = excluded.answered_at,
      answered_run_id = excluded.answered_run_id),
  pw as (
    insert into duragraph.checkpoint_writes as p (shard, tenant_id, thread_id, checkpoint_id, task_id, idx, checkpoint_ns, run_id, task_path,
        channel, saved)
      -- Of two writes to one place in one commit the last stands: a statement cannot change a row twice.
      select distinct on (l.shard, l.tenant_id, l.thread_id, v.checkpoint_id, v.task_id, v.idx) l.shard, l.tenant_id, l.thread_id,
        v.checkpoint_id, v.task_id, v.idx, coalesce(v.ns, ''), l.run_id, coalesce(v.path, ''), v.channel, v.saved
      from l, rows from (json_to_recordset(l.writes) as (checkpoint_id uuid, checkpoint_ns text, task_id uuid, task_path text, idx integer,
          channel text, saved json)) with ordinality as v(checkpoint_id, ns, task_id, path, idx, channel, saved, n)
      order by l.shard, l.tenant_id, l.thread_id, v.checkpoint_id, v.task_id, v.idx, v.n desc
    on conflict on constraint checkpoint_writes_pkey do update set channel = excluded.channel, saved = excluded.saved where p.idx < 0),
  a as (
    update duragraph.interrupts q set answer = v.answer, answered = true, answered_at = v_now, answered_run_id = l.run_id
      from l, json_to_recordset(l.answers) as v(checkpoint_id uuid, task_id uuid, ordinal smallint, answer json)
      where q.shard = l.shard and q.tenant_id = l.tenant_id and q.thread_id = l.thread_id and q.checkpoint_id = v.checkpoint_id
        and q.task_id = v.task_id and q.ordinal = coalesce(v.ordinal, 0) and not q.answered)
  select coalesce(array_agg(l.token), '{}') into v_done from l;
  with gone as (
    delete from duragraph.leases l using json_to_recordset(p_writes) as x(run_id uuid, token bigint, "end" json),
        json_to_record(x."end") as o(status text, error json, output json, retry_after double precision)
      where x."end" is not null and x.token = any(v_done) and l.shard = any(array[duragraph.shard_of(x.run_id)]) and l.run_id = x.run_id and l.token = x.token
    returning (l.shard, l.run_id, l.tenant_id, l.thread_id, l.temporary, l.graph_key, l.token, l.worker_key, l.attempt, l.last_seq,
      l.checkpoint_id, l.claimed_at, o.status, o.error, o.output, null, o.retry_after)::duragraph.run_end as e)
  select coalesce(array_agg(gone.e), '{}') into v_ends from gone;
  return duragraph.write_results(p_writes, v_done, cardinality(v_ends) > 0 and duragraph.settle_runs(v_ends));
end $$;
comment on function duragraph.commit_steps(json) is
  'Commits steps of many runs at once: for each the fence, its events, checkpoints, ledger rows, questions and answers, and its end: all or nothing. Form: see sql/README.md.';
