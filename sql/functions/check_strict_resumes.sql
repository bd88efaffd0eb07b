create or replace function duragraph.check_strict_resumes(p_tenant integer, p_requests json, p_new duragraph.new_run[]) returns void
language plpgsql
set enable_seqscan = off set enable_hashjoin = off set enable_mergejoin = off set jit = off as $$
declare
  v_run record;
  v_open text[];
begin
  for v_run in
    select p_new[r.n] as run, r.body -> 'command' -> 'resume' as answer
    from rows from (json_to_recordset(p_requests) as (body json)) with ordinality as r(body, n)
    where (r.body ->> 'strict_resume')::boolean and r.body -> 'command' -> 'resume' is not null
  loop
    -- A run behind another one would answer what that one has not asked yet.
    select array_agg(i.interrupt_id) into v_open
    from duragraph.slots s
    join duragraph.threads t on t.shard = s.shard and t.tenant_id = s.tenant_id and t.thread_id = s.thread_id
    join duragraph.interrupts i on i.shard = t.shard and i.tenant_id = t.tenant_id and i.thread_id = t.thread_id
      and i.checkpoint_id = coalesce((v_run.run).start_checkpoint_id, t.checkpoint_id)
      and (not i.answered or (v_run.run).start_checkpoint_id is not null)
    where s.shard = (v_run.run).shard and s.tenant_id = p_tenant and s.thread_id = (v_run.run).thread_id
      and s.active_run_id = (v_run.run).run_id;
    -- {"<interrupt id>": answer, ...} has to name one of them.
    if v_open is null or (json_typeof(v_run.answer) = 'object'
        and (select bool_and(k ~ '^[0-9a-f]{32}$' and not k = any(v_open)) from json_object_keys(v_run.answer) k)) then
      raise exception using errcode = 'DG409', message = 'Nothing on this thread waits for an answer.',
        hint = 'GET the thread to see its interrupts; without strict_resume the run is made all the same.',
        detail = '{"code": "nothing_to_resume", "field": "command.resume"}';
    end if;
  end loop;
end $$;
comment on function duragraph.check_strict_resumes(integer, json, duragraph.new_run[]) is
  'Refuses (409) new runs with strict_resume whose answer meets no open question. Called behind the slot''s lock.';
