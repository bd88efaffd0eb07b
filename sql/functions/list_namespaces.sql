create or replace function duragraph.list_namespaces(p_tenant integer, p_op jsonb)
returns json
language plpgsql
set enable_seqscan = off
set enable_sort = off
set jit = off
as $$
declare
  v_now timestamptz := duragraph.current_time();
  v_prefix text[] := duragraph.namespace_of(p_op, 'prefix');
  v_suffix text[] := duragraph.namespace_of(p_op, 'suffix');
  v_depth integer := duragraph.page_number(p_op, 'max_depth', null, 1, 2147483647);
  v_limit integer := duragraph.page_number(p_op, 'limit', 100, 0, 10000);
  v_offset integer := duragraph.page_number(p_op, 'offset', 0, 0, 2147483647);
  v_at text[] := v_prefix[: coalesce(array_position(v_prefix, '*') - 1, cardinality(v_prefix))];
  -- Behind the root come the items of the next tenant.
  v_next integer := p_tenant + (v_at = '{}')::integer;
  v_end text[] := case when v_at = '{}' then '{}' else duragraph.namespace_after(v_at) end;
  v_namespace text[];
  v_found jsonb[] := '{}';
begin
  while cardinality(v_found) < v_limit loop
    -- From one namespace straight to the next: what is in them is not walked over.
    select i.namespace into v_namespace
    from duragraph.store_items i
    where (i.tenant_id, i.namespace) >= (p_tenant, v_at) and (i.tenant_id, i.namespace) < (v_next, v_end)
      and (i.expires_at is null or i.expires_at > v_now)
    order by i.tenant_id, i.namespace
    limit 1;
    exit when not found;
    -- The next comes behind all items of this one, for no label is empty ...
    v_at := array_append(v_namespace, '');
    if duragraph.namespace_matches(v_namespace, v_prefix, v_suffix) then
      if cardinality(v_namespace) >= v_depth then
        -- ... or behind all that is shortened to the same.
        v_namespace := v_namespace[: v_depth];
        v_at := duragraph.namespace_after(v_namespace);
      end if;
      if v_offset > 0 then
        v_offset := v_offset - 1;
      else
        v_found := array_append(v_found, to_jsonb(v_namespace));
      end if;
    end if;
  end loop;
  return to_json(v_found);
end
$$;
comment on function duragraph.list_namespaces(integer, jsonb) is
  'The namespaces that hold items, in order: {prefix, suffix ("*" is any label), max_depth, limit, offset}. Deeper ones are shortened to max_depth. Costs a look for each namespace, not for each item.';
