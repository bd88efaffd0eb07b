create or replace function duragraph.get_cron(p_tenant integer, p_cron uuid)
returns json
language sql
stable
as $$
  select duragraph.cron_json(duragraph.find_cron(p_tenant, p_cron))
$$;
comment on function duragraph.get_cron(integer, uuid) is 'A cron as the API shows it, or 404.';
