create or replace function duragraph.count_crons(p_tenant integer, p_request jsonb default '{}')
returns bigint
language sql
stable
as $$
  select count(*) from duragraph.crons c where c.tenant_id = p_tenant and duragraph.cron_matches(c, p_request)
$$;
comment on function duragraph.count_crons(integer, jsonb) is 'How many crons match {assistant_id, thread_id, enabled, metadata}.';
