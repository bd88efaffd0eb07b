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
  v_vector real[] := case when coalesce(p_op -> 'vector', 'null') <> 'null' then duragraph.unit_vector(p_op -> 'vector') end;
  v_schema name := case when v_vector is not null then duragraph.vector_schema() end;
  v_page duragraph.store_items[];
  v_scores double precision[];
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
  if v_schema is not null then
    -- Vectors of another size are of another embedder, and say nothing here.
    execute format(
      'select array_agg(page.i order by page.n), array_agg(page.score order by page.n)
      from (
        select i, s.score, row_number() over (order by s.score desc nulls last, i.updated_at desc, i.namespace, i.key) as n
        from duragraph.store_items i
        left join lateral (
          select max(1 - (v.vector::%1$I.vector operator(%1$I.<=>) $10::%1$I.vector)) as score
          from duragraph.store_vectors v
          where v.tenant_id = i.tenant_id and v.namespace = i.namespace and v.key = i.key and cardinality(v.vector) = cardinality($10)
        ) s on true
        where (i.tenant_id, i.namespace) >= ($1, $2) and (i.tenant_id, i.namespace) < ($3, $4)
          and (i.expires_at is null or i.expires_at > $5)
          and ($6 = ''{}'' or i.value @> $6)
          and ($7 = ''{}'' or duragraph.item_matches(i.value, $7, $8, $9))
        order by n
        limit $11 offset $12
      ) page',
      v_schema
    )
    into v_page, v_scores
    using p_tenant, v_prefix, v_next, v_end, v_now, v_equal, v_fields, v_operators, v_wanted, v_vector, v_limit, v_offset;
  else
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
  end if;
  if coalesce((p_op ->> 'refresh_ttl')::boolean, true) and exists (select from unnest(v_page) i where i.ttl is not null) then
    perform duragraph.refresh_items(v_page);
  end if;
  return coalesce(
    (select json_agg(duragraph.item_json(v_page[n]) || jsonb_build_object('score', v_scores[n]) order by n) from generate_subscripts(v_page, 1) n), '[]'
  );
end
$$;
comment on function duragraph.search_items(integer, jsonb) is
  'The items under a prefix, last updated first: {namespace_prefix, filter, limit, offset, refresh_ttl, vector}. With the vector of a query, and pgvector, those that fit best first: score is the cosine similarity of an item''s best path, null and last without vectors. Costs what lies under the prefix.';
