create or replace function duragraph.settle_runs(p_ends duragraph.run_end[]) returns boolean
language plpgsql
set enable_seqscan = off set jit = off as $$
declare
  v_back duragraph.run_end[];
  v_wrong text := (select min(coalesce(e.status, 'null')) from unnest(p_ends) e
    where e.status is null or e.status not in ('success', 'error', 'timeout', 'interrupted', 'retry', 'release'));
begin
  if v_wrong is not null then
    raise exception using errcode = 'DG422', message = format('A run cannot end as "%s".', v_wrong),
      hint = 'Use success, error, timeout, interrupted, retry or release.', detail = '{"code": "invalid_end", "field": "end.status"}';
  end if;
  if not exists (select 1 from unnest(p_ends) e where e.status in ('retry', 'release')) then
    return duragraph.end_runs(p_ends);
  end if;
  v_back := array(select e from unnest(p_ends) e where e.status in ('retry', 'release'));
  perform duragraph.requeue_runs(v_back);
  perform duragraph.end_runs(array(select e from unnest(p_ends) e where e.status not in ('retry', 'release')));
  return true;
end $$;
comment on function duragraph.settle_runs(duragraph.run_end[]) is
  'What becomes of runs whose lease has just gone: ended, or back in the queue. True when something became claimable.';
