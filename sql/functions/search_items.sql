create or replace function duragraph.search_items(p_tenant integer, p_op jsonb)
returns json
language plpgsql
set enable_seqscan = off
set jit = off
as $$
declare
  v_now timestamptz := duragraph.current_time();
  v_prefix text[] := duragraph.namespace_of(p_op, 'namespace_prefix');
  v_filter jsonb := nullif(nullif(p_op -> 'filter', 'null'), '{}');
  v_limit integer := duragraph.page_number(p_op, 'limit', 10, 0, 10000);
  v_offset integer := duragraph.page_number(p_op, 'offset', 0, 0, 2147483647);
  -- Behind the root come the items of the next tenant.
  v_next integer := p_tenant + (v_prefix = '{}')::integer;
  v_end text[] := case when v_prefix = '{}' then '{}' else duragraph.namespace_after(v_prefix) end;
  v_equal jsonb := '{}';
  v_fields text[] := '{}';
  v_operators text[];
  v_wanted jsonb[];
  v_page duragraph.store_items[];
begin
  if v_filter is not null then
    perform duragraph.check_filter(v_filter);
    -- Most filters name plain values, and containment is the quickest test there is.
    select coalesce(jsonb_object_agg(f.key, f.value), '{}') into v_equal
    from jsonb_each(v_filter) f
    where jsonb_typeof(f.value) not in ('object', 'array');
    select coalesce(array_agg(f.key), '{}'), array_agg(o.key), array_agg(coalesce(o.value, f.value)) into v_fields, v_operators, v_wanted
    from jsonb_each(v_filter) f
    left join lateral jsonb_each(case when jsonb_typeof(f.value) = 'object' then f.value end) o on o.key like '$%'
    where jsonb_typeof(f.value) in ('object', 'array');
  end if;
  v_page := array(
    select i
    from duragraph.store_items i
    where (i.tenant_id, i.namespace) >= (p_tenant, v_prefix) and (i.tenant_id, i.namespace) < (v_next, v_end)
      and (i.expires_at is null or i.expires_at > v_now)
      and (v_equal = '{}' or i.value @> v_equal)
      and (v_fields = '{}' or duragraph.item_matches(i.value, v_fields, v_operators, v_wanted))
    order by i.updated_at desc, i.namespace, i.key
    limit v_limit offset v_offset
  );
  if coalesce((p_op ->> 'refresh_ttl')::boolean, true) and exists (select from unnest(v_page) i where i.ttl is not null) then
    perform duragraph.refresh_items(v_page);
  end if;
  return coalesce(
    (select json_agg(duragraph.item_json(v_page[n]) || '{"score": null}' order by n) from generate_subscripts(v_page, 1) n), '[]'
  );
end
$$;
comment on function duragraph.search_items(integer, jsonb) is
  'The items under a prefix, last updated first: {namespace_prefix, filter, limit, offset, refresh_ttl, query (taken, and of no effect)}. Costs what lies under the prefix.';
