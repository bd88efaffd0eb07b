create or replace function duragraph.store_batch(p_tenant integer, p_ops json)
returns json
language plpgsql
as $$
declare
  v_op jsonb;
  v_put boolean := false;
  v_result json;
  v_results json[] := '{}';
begin
  if json_array_length(p_ops) > 1 then
    -- In one order, so that two batches with the same items in another do not lock each other out.
    perform pg_advisory_xact_lock(p_tenant, touched.lock)
    from (
      select distinct hashtext((o.value::jsonb -> 'namespace')::text) as lock
      from json_array_elements(p_ops) o
      where o.value ->> 'op' in ('put', 'delete', 'index') and o.value -> 'namespace' is not null
      order by 1
    ) touched;
  end if;
  for v_op in select o.value::jsonb from json_array_elements(p_ops) with ordinality o(value, n) order by o.n loop
    case v_op ->> 'op'
      when 'put' then v_result := duragraph.put_item(p_tenant, v_op);
      when 'get' then v_result := duragraph.get_item(p_tenant, v_op);
      when 'delete' then v_result := duragraph.delete_item(p_tenant, v_op);
      when 'search' then v_result := duragraph.search_items(p_tenant, v_op);
      when 'index' then v_result := duragraph.index_item(p_tenant, v_op);
      when 'list_namespaces' then v_result := duragraph.list_namespaces(p_tenant, v_op);
      else
        raise exception using
          errcode = 'DG422',
          message = 'op is none that the store knows.',
          hint = 'Use put, get, delete, search, list_namespaces or index.',
          detail = '{"code":"invalid_op","field":"op"}';
    end case;
    v_results := array_append(v_results, coalesce(v_result, 'null'));
    v_put := v_put or v_op ->> 'op' = 'put';
  end loop;
  if v_put and exists (select from duragraph.graphs g where g.tenant_id = p_tenant and g.graph_id = '__embed__') then
    perform duragraph.index_puts(p_tenant, p_ops);
  end if;
  return array_to_json(v_results);
end
$$;
comment on function duragraph.store_batch(integer, json) is
  'Does [{op, ...}] in order, all or nothing, and gives the results in order: put and delete null, get an item or null, search items, list_namespaces namespaces, index whether it was done. What was put is indexed by a run of the embedder, if there is one.';
