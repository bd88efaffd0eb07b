create or replace function duragraph.found_threads(p_tenant integer, p_request jsonb)
returns setof duragraph.threads
language sql
stable
as $$
  select t.*
  from duragraph.threads t
  -- As in the index threads_by_update.
  where t.tenant_id::bigint = p_tenant
    -- Cheap tests before those that look at each thread: busy ones are few, and ids are given.
    and (
      p_request ->> 'status' is distinct from 'busy'
      or t.thread_id in (select s.thread_id from duragraph.slots s where s.tenant_id = p_tenant)
    )
    and (
      jsonb_typeof(p_request -> 'ids') is distinct from 'array'
      or t.thread_id in (select unnest(duragraph.text_array(p_request -> 'ids')::uuid[]))
    )
    and duragraph.thread_matches(t, p_request)
$$;
comment on function duragraph.found_threads(integer, jsonb) is
  'The threads that {metadata, values, status, ids} finds, in no order.';
