create or replace function duragraph.count_threads(p_tenant integer, p_request jsonb default '{}', p_at_most bigint default null)
returns bigint
language sql
stable
as $$
  select count(*)
  from (
    select from duragraph.threads t where t.tenant_id = p_tenant and duragraph.thread_matches(t, p_request) limit p_at_most
  ) found
$$;
comment on function duragraph.count_threads(integer, jsonb, bigint) is
  'How many threads match {metadata, values, status, ids}; stops counting at p_at_most.';
