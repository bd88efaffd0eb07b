create or replace function duragraph.assistant_schemas(p_tenant integer, p_assistant uuid)
returns json
language sql
stable
as $$
  select json_build_object(
    'graph_id', g.graph_id,
    'input_schema', coalesce(g.schemas -> 'input_schema', '{"type": "object"}'),
    'output_schema', coalesce(g.schemas -> 'output_schema', '{"type": "object"}'),
    'state_schema', coalesce(g.schemas -> 'state_schema', '{"type": "object"}'),
    'config_schema', coalesce(g.schemas -> 'config_schema', '{"type": "object"}'),
    'context_schema', coalesce(g.schemas -> 'context_schema', '{"type": "object"}')
  )
  from duragraph.find_graph(p_tenant, (duragraph.find_assistant(p_tenant, p_assistant)).graph_id) g
$$;
comment on function duragraph.assistant_schemas(integer, uuid) is
  'The JSON Schemas of an assistant''s graph; a schema that no worker registered accepts any object.';
