create or replace function duragraph.delete_cron(p_tenant integer, p_cron uuid)
returns void
language plpgsql
as $$
begin
  delete from duragraph.crons c where c.tenant_id = p_tenant and c.cron_id = p_cron;
  if not found then
    perform duragraph.find_cron(p_tenant, p_cron);
  end if;
end
$$;
comment on function duragraph.delete_cron(integer, uuid) is 'Deletes a cron, or 404. Runs that it made stay.';
