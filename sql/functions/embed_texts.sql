create or replace function duragraph.embed_texts(p_tenant integer, p_texts jsonb)
returns uuid
language plpgsql
as $$
declare
  v_graph duragraph.graphs;
begin
  if duragraph.vector_schema() is not null then
    v_graph := duragraph.embedder(p_tenant);
  end if;
  -- Somebody waits for these: before all that is to be indexed, and once.
  return case when v_graph.graph_key is not null then duragraph.create_embed_run(v_graph, jsonb_build_object('texts', p_texts), 100, 1) end;
end
$$;
comment on function duragraph.embed_texts(integer, jsonb) is
  'Makes the run that embeds the queries of searches, whose output is {vectors}; null where no worker offers an embedder now, or the database has no pgvector.';
