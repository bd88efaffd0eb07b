create or replace function duragraph.reindex_items(p_tenant integer default 1)
returns integer
language plpgsql
as $$
declare
  v_graph duragraph.graphs := duragraph.embedder(p_tenant, interval '1 day');
  v_items jsonb;
  v_queued integer := 0;
begin
  if v_graph.graph_key is null then
    raise exception using
      errcode = 'DG409',
      message = 'There is no embedder.',
      hint = 'Start a worker that offers one.',
      detail = '{"code":"no_embedder"}';
  end if;
  for v_items in
    select jsonb_agg(missing.item)
    from (
      select duragraph.item_to_index(i) as item, row_number() over (order by i.namespace, i.key) as n
      from duragraph.store_items i
      where i.tenant_id = p_tenant and i.index_paths is distinct from 'false' and not exists (
        select from duragraph.store_vectors v
        where v.tenant_id = i.tenant_id and v.namespace = i.namespace and v.key = i.key
          and cardinality(v.vector) = (v_graph.definition ->> 'dims')::integer
      )
    ) missing
    group by (missing.n - 1) / 100
  loop
    perform duragraph.create_embed_run(v_graph, jsonb_build_object('items', v_items), -1, 10);
    v_queued := v_queued + jsonb_array_length(v_items);
  end loop;
  perform duragraph.notify_runs('{}', true);
  return v_queued;
end
$$;
comment on function duragraph.reindex_items(integer) is
  'Has the embedder index all items that have no vectors of its size; gives how many. For items that were there before it. After a change to a model of the same size, first: delete from duragraph.store_vectors.';
