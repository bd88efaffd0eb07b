create or replace function duragraph.search_crons(
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
    when 'cron_id' then 'cron_id'
    when 'assistant_id' then 'assistant_id'
    when 'thread_id' then 'thread_id'
    when 'next_run_date' then 'next_run_date'
    when 'end_time' then 'end_time'
    when 'created_at' then 'created_at'
    when 'updated_at' then 'updated_at'
  end;
begin
  if v_column is null then
    perform duragraph.refuse_sort('cron_id, assistant_id, thread_id, next_run_date, end_time, created_at, updated_at');
  end if;
  total := duragraph.count_crons(p_tenant, p_request);
  -- The statement is made of the fixed words above; everything a caller sent is a bound value.
  execute 'select ''['' || coalesce(string_agg(duragraph.cron_json(c, $5)::text, '','' order by n), '''') || '']''
    from (
      select c, row_number() over (order by c.' || v_column || ' ' || v_direction || ' nulls last, c.cron_id ' || v_direction || ') as n
      from duragraph.crons c
      where c.tenant_id = $1 and duragraph.cron_matches(c, $2)
      order by n
      limit $3 offset $4
    ) page'
  into items
  using p_tenant, p_request, v_limit, v_offset, v_select;
  next_offset := case when total > v_offset + v_limit then v_offset + v_limit end;
end
$$;
comment on function duragraph.search_crons(integer, jsonb) is
  'One page of crons as JSON text, how many match in all, and the offset of the next page or null.
{assistant_id, thread_id, enabled, metadata, limit, offset, sort_by, sort_order, select}; newest first unless sorted.';
