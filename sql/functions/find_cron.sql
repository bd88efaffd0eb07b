create or replace function duragraph.find_cron(p_tenant integer, p_cron uuid)
returns duragraph.crons
language plpgsql
stable
as $$
declare
  v_cron duragraph.crons;
begin
  select * into v_cron from duragraph.crons c where c.tenant_id = p_tenant and c.cron_id = p_cron;
  if not found then
    raise exception using
      errcode = 'DG404',
      message = 'Cron ' || p_cron || ' not found.',
      hint = 'List crons with POST /runs/crons/search.',
      detail = '{"code":"cron_not_found","field":"cron_id"}';
  end if;
  return v_cron;
end
$$;
comment on function duragraph.find_cron(integer, uuid) is 'The cron''s row, or 404.';
