create or replace function duragraph.get_thread(p_tenant integer, p_thread uuid, p_include text[] default '{}')
returns json
language sql
stable
as $$
  select duragraph.thread_json(duragraph.find_thread(p_tenant, p_thread), null, null, 'ttl' = any (p_include))
$$;
comment on function duragraph.get_thread(integer, uuid, text[]) is
  'A thread in the API''s form, or 404; p_include: ttl adds its time to live.';
