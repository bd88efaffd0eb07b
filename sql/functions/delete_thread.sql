create or replace function duragraph.delete_thread(p_tenant integer, p_thread uuid)
returns json
language plpgsql
as $$
declare
  v_ended json;
begin
  perform duragraph.find_thread(p_tenant, p_thread);
  v_ended := duragraph.take_thread(p_tenant, p_thread);
  if not duragraph.erase_thread(p_tenant, p_thread) then
    -- Another session deleted it meanwhile.
    perform duragraph.find_thread(p_tenant, p_thread);
  end if;
  return json_build_object('runs', v_ended);
end
$$;
comment on function duragraph.delete_thread(integer, uuid) is
  'Ends the thread''s runs, then deletes it with its runs, events, checkpoints, steps and questions.
Gives {runs: those it ended, with the worker_key and token of their leases}.';
