create or replace function duragraph.cancel_run(p_run uuid, p_reason text default 'cancelled by an operator') returns text
language plpgsql as $$
declare
  v_run duragraph.runs;
  v_gone json;
begin
  select r.* into v_run from duragraph.runs r where r.shard = duragraph.shard_of(p_run) and r.run_id = p_run;
  if not found then
    return format('There is no run %s.', p_run);
  elsif v_run.status <> 'pending' then
    return format('Run %s has already ended: %s.', p_run, v_run.status);
  end if;
  v_gone := duragraph.cancel_runs(v_run.tenant_id, jsonb_build_object('run_ids', jsonb_build_array(p_run), 'reason', p_reason)) -> 'runs';
  perform duragraph.notify_ended(v_gone), duragraph.notify_runs('{}', true);
  if v_gone -> 0 ->> 'token' is null then
    return format('Run %s is cancelled; it had not started.', p_run);
  end if;
  return format('Run %s is cancelled; its worker is told to stop.', p_run);
end $$;
comment on function duragraph.cancel_run(uuid, text) is 'Cancel a run by hand, whatever it is doing. Says what was done.';
