create or replace function duragraph.thread_json(
  p_thread duragraph.threads, p_select text[] default null, p_extract jsonb default null, p_ttl boolean default false
)
returns json
language sql
stable
as $$
  with whole as (
    select json_build_object(
      'thread_id', p_thread.thread_id,
      'created_at', duragraph.iso(p_thread.created_at),
      'updated_at', duragraph.iso(p_thread.updated_at),
      'state_updated_at', duragraph.iso(p_thread.state_updated_at),
      'metadata', p_thread.metadata,
      'status', duragraph.thread_status(p_thread),
      'config', '{"configurable": {}}'::jsonb || p_thread.config,
      'values', case
        when p_select is null or 'values' = any (p_select) or p_extract is not null
          then duragraph.checkpoint_values(
            p_thread.shard, p_thread.tenant_id, p_thread.thread_id, '', p_thread.values_checkpoint_id
          )
      end,
      'error', p_thread.error,
      'interrupts', duragraph.thread_interrupts(p_thread)
    ) as body
  ),
  added as (
    select 'ttl' as key, json_build_object(
      'strategy', p_thread.ttl -> 'strategy', 'ttl_minutes', p_thread.ttl -> 'ttl',
      'expires_at', duragraph.iso(p_thread.expires_at)
    ) as value
    where p_ttl and p_thread.ttl is not null
    union all
    select 'extracted', (
      select json_object_agg(x.key, whole.body #> duragraph.json_path(x.value))
      from whole, jsonb_each_text(p_extract) x
    )
    where p_extract is not null
  )
  select case
    when p_select is null and not p_ttl and p_extract is null then whole.body
    else (
      select coalesce(json_object_agg(f.key, f.value), '{}')
      from (
        select b.key, b.value from json_each(whole.body) b where p_select is null or b.key = any (p_select)
        union all
        select a.key, a.value from added a
      ) f
    )
  end
  from whole
$$;
comment on function duragraph.thread_json(duragraph.threads, text[], jsonb, boolean) is
  'A thread as the API shows it: with p_select only those fields, with p_extract {alias: path} also what the paths find, with p_ttl its time to live.';
