create or replace function duragraph.settle_runs(p_ends duragraph.run_end[]) returns boolean
language plpgsql
set enable_seqscan = off set jit = off as $$
declare
  v_back boolean;
  v_wrong text;
begin
  select bool_or(e.status in ('retry', 'release')),
      min(coalesce(e.status, 'null')) filter (where e.status is null or e.status not in ('success', 'error', 'timeout', 'interrupted', 'retry', 'release'))
    into v_back, v_wrong from unnest(p_ends) e;
  if v_wrong is not null then
    raise exception using errcode = 'DG422', message = format('A run cannot end as "%s".', v_wrong),
      hint = 'Use success, error, timeout, interrupted, retry or release.', detail = '{"code": "invalid_end", "field": "end.status"}';
  end if;
  if v_back is not true then
    return duragraph.end_runs(p_ends);
  end if;
  perform duragraph.requeue_runs(array(select e from unnest(p_ends) e where e.status in ('retry', 'release')));
  perform duragraph.end_runs(array(select e from unnest(p_ends) e where e.status not in ('retry', 'release')));
  return true;
end $$;
comment on function duragraph.settle_runs(duragraph.run_end[]) is
  'What becomes of runs whose lease has just gone: ended, or back in the queue. True when something became claimable.';
