create or replace function duragraph.check_new_runs(p_tenant integer, p_requests json, p_new duragraph.new_run[]) returns void
language plpgsql
set enable_seqscan = off set enable_hashjoin = off set enable_mergejoin = off set jit = off as $$
declare
  v_bad record;
begin
  for v_bad in
    select r.thread_id is null as without, r.body ->> 'assistant_id' as assistant, r.body ->> 'if_not_exists' as if_not_exists, p_new[r.n] as run
    from rows from (json_to_recordset(p_requests) as (thread_id uuid, body json)) with ordinality as r(thread_id, body, n) order by r.n
  loop
    if (v_bad.run).assistant_id is null then
      perform duragraph.refuse_assistant(p_tenant, v_bad.assistant);
    elsif not (v_bad.run).temporary and not exists (select 1 from duragraph.threads t where t.shard = (v_bad.run).shard
        and t.tenant_id = p_tenant and t.thread_id = (v_bad.run).thread_id) then
      if not v_bad.without and v_bad.if_not_exists is distinct from 'create' then
        raise exception using errcode = 'DG404', message = 'Thread or assistant not found.',
          hint = format('Create thread %s first, or send "if_not_exists": "create".', (v_bad.run).thread_id),
          detail = '{"code": "thread_not_found", "field": "thread_id"}';
      end if;
      insert into duragraph.threads (shard, tenant_id, thread_id) values ((v_bad.run).shard, p_tenant, (v_bad.run).thread_id)
        on conflict do nothing;
    end if;
  end loop;
end $$;
comment on function duragraph.check_new_runs(integer, json, duragraph.new_run[]) is
  'Raises what is wrong with the first new run that lacks its assistant or thread; makes the threads that were asked for with if_not_exists, or that keep a run of no thread.';
