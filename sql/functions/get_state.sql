create or replace function duragraph.get_state(p_tenant integer, p_thread uuid, p_request jsonb default '{}')
returns json
language plpgsql
stable
as $$
declare
  v_thread duragraph.threads := duragraph.find_thread(p_tenant, p_thread);
  v_point record := duragraph.checkpoint_point(
    coalesce(nullif(p_request -> 'checkpoint', 'null'), p_request -> 'checkpoint_id'), 'checkpoint'
  );
  v_head uuid := duragraph.thread_head(v_thread);
  v_checkpoint uuid := coalesce(v_point.checkpoint_id, case when v_point.checkpoint_ns = '' then v_head end);
  v_state json;
  v_next json;
begin
  if v_checkpoint is not null or v_point.checkpoint_ns <> '' then
    v_state := duragraph.state_json(
      v_thread.shard, p_tenant, p_thread, v_point.checkpoint_ns, v_checkpoint,
      case when v_thread.status = 'error' and v_checkpoint = v_head then v_thread.error end,
      coalesce((p_request ->> 'subgraphs')::boolean, false)
    );
  end if;
  -- Of the latest state, what is finished already is not next any more, though its superstep is not complete.
  if v_state is not null and v_point.checkpoint_id is null then
    select json_agg(t.task -> 'name' order by t.n) filter (where d.task_id is null) into v_next
    from json_array_elements(v_state -> 'tasks') with ordinality t (task, n)
    left join lateral (
      select s.task_id from duragraph.steps s
      where s.shard = v_thread.shard and s.tenant_id = p_tenant and s.thread_id = p_thread
        and s.checkpoint_id = (v_state ->> 'checkpoint_id')::uuid and s.task_id = (t.task ->> 'id')::uuid and s.step_key = ''
      limit 1
    ) d on true
    having count(d.task_id) > 0;
    if found then
      v_state := (v_state::jsonb || jsonb_build_object('next', coalesce(v_next, '[]')))::json;
    end if;
  end if;
  return duragraph.selected_state(coalesce(v_state, duragraph.empty_state()), duragraph.text_array(p_request -> 'select'));
end
$$;
comment on function duragraph.get_state(integer, uuid, jsonb) is
  'The state of a thread: the latest, or at {checkpoint} or {checkpoint_id}; {subgraphs: true} nests those of its subgraphs; {select} as selected_state().
404 for an unknown thread; an unknown checkpoint is an empty state.';
