create or replace function duragraph.search_threads(
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
  v_extract jsonb := nullif(nullif(p_request -> 'extract', 'null'), '{}');
  v_direction text := case p_request ->> 'sort_order' when 'asc' then 'asc' else 'desc' end;
  v_column text := case coalesce(p_request ->> 'sort_by', 'updated_at')
    when 'thread_id' then 't.thread_id'
    when 'status' then 'duragraph.thread_status(t)'
    when 'created_at' then 't.created_at'
    when 'updated_at' then 't.updated_at'
    when 'state_updated_at' then 't.state_updated_at'
  end;
begin
  if v_column is null then
    perform duragraph.refuse_sort('thread_id, status, created_at, updated_at, state_updated_at');
  end if;
  -- Refused here, as with nothing found no path would be followed.
  perform duragraph.json_path(x.value) from jsonb_each_text(v_extract) x;
  -- A page costs the page: beyond it only so many are counted, and none where each would have to be rendered first.
  total := duragraph.count_threads(
    p_tenant, p_request, v_offset + v_limit + case when coalesce(p_request -> 'values', 'null') in ('null', '{}') then 10000 else 1 end
  );
  -- The statement is made of the fixed words above; everything a caller sent is a bound value.
  execute 'select ''['' || coalesce(string_agg(duragraph.thread_json(page.t, $5, $6)::text, '','' order by n), '''') || '']''
    from (
      select t, row_number() over () as n
      from (
        select t from duragraph.found_threads($1, $2) t
        order by ' || v_column || ' ' || v_direction || ', t.thread_id ' || v_direction || '
        limit $3 offset $4
      ) sorted
    ) page'
  into items
  using p_tenant, p_request, v_limit, v_offset, v_select, v_extract;
  next_offset := case when total > v_offset + v_limit then v_offset + v_limit end;
end
$$;
comment on function duragraph.search_threads(integer, jsonb) is
  'One page of threads as JSON text, how many match (counted up to 10000 beyond the page), and the next offset or null.
{metadata, values, status, ids, limit, offset, sort_by, sort_order, select, extract}; last updated first unless sorted.';
