create or replace function duragraph.new_config(p_config jsonb, p_context jsonb, p_asked jsonb, p_asked_context jsonb, p_request_id text) returns jsonb
language sql stable parallel safe as $$
  select p_config || coalesce(p_asked, '{}')
    || case when p_context = '{}' and coalesce(p_asked_context, '{}') = '{}' and p_request_id is null and not p_config ? 'configurable' then '{}'
      else jsonb_build_object('configurable', coalesce(nullif(p_config -> 'configurable', 'null'), '{}') || p_context || coalesce(p_asked_context, '{}')
        || case when p_request_id is null then '{}' else jsonb_build_object('langgraph_request_id', p_request_id) end) end
$$;
comment on function duragraph.new_config(jsonb, jsonb, jsonb, jsonb, text) is
  'The config of a new run: its assistant''s config and context under what was asked; context shows in configurable.';
