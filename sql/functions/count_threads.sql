create or replace function duragraph.count_threads(p_tenant integer, p_request jsonb default '{}', p_at_most bigint default null)
returns bigint
language sql
stable
set jit = off
as $$
  select count(*) from (select from duragraph.found_threads(p_tenant, p_request) limit p_at_most) found
$$;
comment on function duragraph.count_threads(integer, jsonb, bigint) is
  'How many threads {metadata, values, status, ids} finds; stops counting at p_at_most.';
