create or replace function duragraph.get_assistant(p_tenant integer, p_assistant uuid)
returns json
language sql
stable
as $$
  select duragraph.assistant_json(duragraph.find_assistant(p_tenant, p_assistant))
$$;
comment on function duragraph.get_assistant(integer, uuid) is 'An assistant in the API''s form, or 404.';
