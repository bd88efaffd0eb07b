create or replace function duragraph.search_assistants(
  p_tenant integer, p_request jsonb, out items text, out total bigint, out next_offset integer
)
language plpgsql
stable
set jit = off
as $$
declare
  v_limit integer := coalesce((p_request ->> 'limit')::integer, 10);
  v_offset integer := coalesce((p_request ->> 'offset')::integer, 0);
  v_select text[] := duragraph.text_array(p_request -> 'select');
  v_direction text := case p_request ->> 'sort_order' when 'asc' then 'asc' else 'desc' end;
  v_column text := case coalesce(p_request ->> 'sort_by', 'created_at')
    when 'assistant_id' then 'assistant_id'
    when 'created_at' then 'created_at'
    when 'updated_at' then 'updated_at'
    when 'name' then 'name'
    when 'graph_id' then 'graph_id'
  end;
begin
  if v_column is null then
    perform duragraph.refuse_sort('assistant_id, created_at, updated_at, name, graph_id');
  end if;
  total := duragraph.count_assistants(p_tenant, p_request);
  -- The statement is made of the fixed words above; everything a caller sent is a bound value.
  execute 'select ''['' || coalesce(string_agg(duragraph.assistant_json(a, $5)::text, '','' order by n), '''') || '']''
    from (
      select a, row_number() over (order by a.' || v_column || ' ' || v_direction || ', a.assistant_id) as n
      from duragraph.assistants a
      where a.tenant_id = $1 and duragraph.assistant_matches(a, $2)
      order by n
      limit $3 offset $4
    ) page'
  into items
  using p_tenant, p_request, v_limit, v_offset, v_select;
  next_offset := case when total > v_offset + v_limit then v_offset + v_limit end;
end
$$;
comment on function duragraph.search_assistants(integer, jsonb) is
  'One page of assistants as JSON text, how many match in all, and the offset of the next page or null.
{metadata, graph_id, name, limit, offset, sort_by, sort_order, select}; newest first unless sorted.';
