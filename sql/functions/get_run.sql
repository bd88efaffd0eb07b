create or replace function duragraph.get_run(p_tenant integer, p_run uuid, p_thread uuid default null) returns json
language plpgsql stable
set enable_seqscan = off set jit = off as $$
declare
  v_run duragraph.runs;
begin
  select r.* into v_run from duragraph.runs r
    where r.shard = duragraph.shard_of(p_run) and r.run_id = p_run and r.tenant_id = p_tenant and r.kind = 'run' and (p_thread is null or r.thread_id = p_thread);
  if not found then
    raise exception using errcode = 'DG404', message = 'Run not found.', hint = 'It may have been deleted or rolled back, or belong to another thread.',
      detail = '{"code": "run_not_found", "field": "run_id"}';
  end if;
  return duragraph.run_json(v_run, duragraph.run_status(v_run.shard, p_run));
end $$;
comment on function duragraph.get_run(integer, uuid, uuid) is 'One run as the API shows it; with a thread, only if it is that thread''s.';
