create or replace function duragraph.find_assistant(p_tenant integer, p_assistant uuid)
returns duragraph.assistants
language plpgsql
stable
as $$
declare
  v_assistant duragraph.assistants;
begin
  select * into v_assistant from duragraph.assistants a where a.tenant_id = p_tenant and a.assistant_id = p_assistant;
  if not found then
    raise exception using
      errcode = 'DG404',
      message = 'Assistant ' || p_assistant || ' not found.',
      hint = 'List assistants with POST /assistants/search.',
      detail = '{"code":"assistant_not_found"}';
  end if;
  return v_assistant;
end
$$;
comment on function duragraph.find_assistant(integer, uuid) is 'The assistant''s row, or 404.';
