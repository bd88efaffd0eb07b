create or replace function duragraph.new_kwargs(p_body duragraph.run_request, p_config jsonb, p_context jsonb) returns json
language sql stable parallel safe as $$
  select concat('{"input":', coalesce((p_body).input, 'null'), ',"config":', p_config,
    ',"context":' || nullif(p_context, '{}')::text, ',"command":' || (p_body).command,
    ',"stream_mode":', case json_typeof((p_body).stream_mode) when 'array' then (p_body).stream_mode
      when 'string' then json_build_array((p_body).stream_mode) else '["values"]' end,
    case when (p_body).stream_subgraphs then ',"subgraphs":true' end, case when (p_body).stream_resumable then ',"resumable":true' end,
    ',"interrupt_before":' || (p_body).interrupt_before, ',"interrupt_after":' || (p_body).interrupt_after,
    ',"webhook":' || to_json((p_body).webhook), ',"feedback_keys":' || (p_body).feedback_keys,
    ',"checkpoint_id":' || to_json(coalesce((p_body).checkpoint_id, (p_body).checkpoint ->> 'checkpoint_id')),
    ',"on_completion":' || to_json((p_body).on_completion),
    ',"durability":' || coalesce(to_json((p_body).durability), case when (p_body).checkpoint_during is false then '"exit"' end::json), '}')::json
$$;
comment on function duragraph.new_kwargs(duragraph.run_request, jsonb, jsonb) is
  'The kwargs of a new run, as they are stored: what has its default is left out, run_kwargs() shows it all the same.';
