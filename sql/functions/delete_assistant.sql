create or replace function duragraph.delete_assistant(
  p_tenant integer, p_assistant uuid, p_delete_threads boolean default false
)
returns json
language plpgsql
as $$
declare
  v_assistant duragraph.assistants := duragraph.find_assistant(p_tenant, p_assistant);
  v_ended json;
begin
  if v_assistant.metadata ->> 'created_by' = 'system' then
    raise exception using
      errcode = 'DG409',
      message = 'The assistant of graph ''' || v_assistant.graph_id || ''' cannot be deleted.',
      hint = 'It belongs to the graph, for which its workers would make it again.',
      detail = '{"code":"system_assistant"}';
  end if;
  -- First, as create_cron() holds it while it looks at the thread: now nobody can make another.
  perform from duragraph.assistants a where a.tenant_id = p_tenant and a.assistant_id = p_assistant for update;
  delete from duragraph.crons c where c.tenant_id = p_tenant and c.assistant_id = p_assistant;
  if p_delete_threads then
    select json_agg(r.run) into v_ended
    from (
      select duragraph.delete_thread(p_tenant, t.thread_id) as gone
      from duragraph.threads t
      where t.tenant_id = p_tenant and t.metadata @> jsonb_build_object('assistant_id', p_assistant)
      order by t.shard, t.thread_id
    ) d, json_array_elements(d.gone -> 'runs') r (run);
  end if;
  delete from duragraph.assistant_versions v where v.tenant_id = p_tenant and v.assistant_id = p_assistant;
  delete from duragraph.assistants a where a.tenant_id = p_tenant and a.assistant_id = p_assistant;
  return json_build_object('runs', coalesce(v_ended, '[]'));
end
$$;
comment on function duragraph.delete_assistant(integer, uuid, boolean) is
  'Deletes an assistant with its versions and crons and, when asked, the threads whose metadata names it; gives {runs: those that ended}.';
