create or replace function duragraph.register_graph(p_tenant integer, p_graph jsonb, p_build text default null) returns integer
language plpgsql as $$
declare
  v_graph duragraph.graphs;
  v_id text := p_graph ->> 'graph_id';
begin
  if v_id = '__embed__' and coalesce(jsonb_path_exists(p_graph, 'strict $.definition.dims ? (@.type() == "number" && @ >= 1 && @ <= 16000 && @ == @.floor())'), false) is false then
    raise exception using errcode = 'DG422', message = 'An embedder needs its dims.', hint = 'How many numbers its vectors have: 1 to 16000.',
      detail = '{"code": "invalid_embedder", "field": "definition.dims"}';
  end if;
  select g.* into v_graph from duragraph.graphs g where g.tenant_id = p_tenant and g.graph_id = v_id;
  if not found then
    insert into duragraph.graphs (tenant_id, graph_id, assistant_id, build_id, definition, schemas)
      values (p_tenant, v_id, duragraph.uuid5('6ba7b821-9dad-11d1-80b4-00c04fd430c8', v_id), p_build,
        coalesce(p_graph -> 'definition', '{}'), coalesce(p_graph -> 'schemas', '{}'))
      on conflict (tenant_id, graph_id) do nothing;
  else
    update duragraph.graphs g set build_id = p_build, definition = coalesce(p_graph -> 'definition', g.definition),
        schemas = coalesce(p_graph -> 'schemas', g.schemas), updated_at = duragraph.current_time()
      where g.graph_key = v_graph.graph_key and (g.build_id, g.definition, g.schemas) is distinct from
        (p_build, coalesce(p_graph -> 'definition', g.definition), coalesce(p_graph -> 'schemas', g.schemas));
  end if;
  select g.* into v_graph from duragraph.graphs g where g.tenant_id = p_tenant and g.graph_id = v_id;
  if v_id = '__embed__' then
    -- Nobody's assistant: its runs are made by the store alone.
    return v_graph.graph_key;
  end if;
  with made as (
    insert into duragraph.assistants (tenant_id, assistant_id, graph_id, name, description, metadata)
      values (p_tenant, v_graph.assistant_id, v_id, v_id, nullif(p_graph -> 'definition' ->> 'description', ''), '{"created_by": "system"}')
      on conflict do nothing returning *)
  insert into duragraph.assistant_versions (tenant_id, assistant_id, version, graph_id, name, description, config, context, metadata)
    select tenant_id, assistant_id, version, graph_id, name, description, config, context, metadata from made
    on conflict do nothing;
  return v_graph.graph_key;
end $$;
comment on function duragraph.register_graph(integer, jsonb, text) is
  'Makes or updates a graph {graph_id, definition, schemas} and its system assistant, whose id is uuid5 of the graph id; __embed__, the embedder, has none. Answers the graph_key.';
