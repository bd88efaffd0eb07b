create or replace function duragraph.index_puts(p_tenant integer, p_ops json)
returns uuid
language plpgsql
set enable_seqscan = off
set enable_hashjoin = off
set enable_mergejoin = off
set jit = off
as $$
declare
  -- A deployment may leave a gap; who took the embedder away for good must not fill the queue.
  v_graph duragraph.graphs := duragraph.embedder(p_tenant, interval '1 day');
  v_items jsonb;
  v_run uuid;
begin
  if v_graph.graph_key is null then
    return null;
  end if;
  select jsonb_agg(duragraph.item_to_index(i)) into v_items
  from (
    select distinct duragraph.text_array(o.value::jsonb -> 'namespace') as namespace, o.value ->> 'key' as key
    from json_array_elements(p_ops) o
    where o.value ->> 'op' = 'put'
  ) o
  join duragraph.store_items i on i.tenant_id = p_tenant and i.namespace = o.namespace and i.key = o.key
  where i.index_paths is distinct from 'false';
  if v_items is not null then
    v_run := duragraph.create_embed_run(v_graph, jsonb_build_object('items', v_items), 0, 10);
    perform duragraph.notify_runs(array[v_run], true);
  end if;
  return v_run;
end
$$;
comment on function duragraph.index_puts(integer, json) is
  'Has the embedder index what these operations put, in one run that is there if they are; gives it. Null where there is no embedder, or nothing to index.';
