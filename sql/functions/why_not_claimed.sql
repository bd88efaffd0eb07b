create or replace function duragraph.why_not_claimed(p_run duragraph.runs)
returns text
language sql
stable
set jit = off
as $$
  with serving as (
    select
      w.worker_id, w.status, w.capacity, b.beat_at, coalesce(b.expires_at >= duragraph.current_time(), false) as alive,
      (select count(*) from duragraph.leases l where l.worker_key = w.worker_key) as held
    from duragraph.workers w
    left join duragraph.worker_heartbeats b on b.worker_key = w.worker_key
    where w.tenant_id = p_run.tenant_id and p_run.graph_key = any (w.graph_keys) and w.status <> 'stopped'
  ),
  counted as (
    select
      count(*) as known,
      count(*) filter (where alive) as alive,
      count(*) filter (where alive and status = 'active') as active,
      count(*) filter (where alive and status = 'active' and held < capacity) as free,
      sum(held) filter (where alive and status = 'active') as held,
      sum(capacity) filter (where alive and status = 'active') as capacity,
      (array_agg(worker_id order by beat_at desc nulls last))[1] as latest,
      max(beat_at) as beat_at
    from serving
  )
  select case
    when c.known = 0 then 'no worker serves graph ' || g.graph_id || '; start one.'
    when c.alive = 0 then 'no live worker serves graph ' || g.graph_id || '; the last was ' || c.latest || ', silent since '
      || coalesce(duragraph.iso(c.beat_at), 'it registered') || '.'
    when c.active = 0 then 'every live worker of graph ' || g.graph_id || ' is draining (' || c.alive || '); start another.'
    when c.free = 0 then 'every worker of graph ' || g.graph_id || ' is full (' || c.held || ' of ' || c.capacity
      || ' runs); it starts when one of them has ended, or start another worker.'
    else (
      select case count(*)
        when 0 then 'it is the next of graph ' || g.graph_id
        when 1 then 'one run of graph ' || g.graph_id || ' is before it'
        else count(*) || ' runs of graph ' || g.graph_id || ' are before it'
      end
      from duragraph.ready r where r.graph_key = p_run.graph_key and r.ord < p_run.ord
    ) || '; live workers with room: ' || c.free || ' of ' || c.active || ', which take runs in this order.'
  end
  from counted c, duragraph.graphs g
  where g.graph_key = p_run.graph_key
$$;
comment on function duragraph.why_not_claimed(duragraph.runs) is
  'The part of why_not_running() about a run that is ready: what the workers of its graph do.';
