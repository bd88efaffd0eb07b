create or replace function duragraph.refuse_assistant(p_tenant integer, p_assistant text) returns void
language plpgsql as $$
begin
  if p_assistant ~ '^[0-9a-fA-F]{8}-?([0-9a-fA-F]{4}-?){3}[0-9a-fA-F]{12}$' then
    raise exception using errcode = 'DG404', message = 'Thread or assistant not found.',
      hint = format('No assistant %s; list them with POST /assistants/search.', p_assistant),
      detail = '{"code": "assistant_not_found", "field": "assistant_id"}';
  end if;
  raise exception using errcode = 'DG422',
    message = format('Invalid assistant: ''%s''. Must be either: - A valid assistant UUID, or - One of the registered graphs: %s', p_assistant,
      coalesce((select string_agg(graph_id, ', ' order by graph_id) from duragraph.graphs where tenant_id = p_tenant and graph_id <> '__embed__'), '(none yet)')),
    hint = 'A graph is registered when a worker that serves it starts.',
    detail = '{"code": "graph_not_found", "field": "assistant_id"}';
end $$;
comment on function duragraph.refuse_assistant(integer, text) is 'Raises the error for an assistant that is not there: 404 for an unknown id, 422 for an unknown graph name.';
