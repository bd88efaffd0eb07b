create or replace function duragraph.cron_payload(p_cron duragraph.crons)
returns json
language sql
immutable
as $$
  select duragraph.merged_json(p.kept, json_build_object(
    'assistant_id', p_cron.assistant_id,
    'metadata', p_cron.metadata,
    'config', coalesce(nullif((p.kept -> 'config')::jsonb, 'null'), '{}') || jsonb_build_object(
      'configurable',
      coalesce(nullif((p.kept -> 'config' -> 'configurable')::jsonb, 'null'), '{}') || jsonb_build_object('cron_id', p_cron.cron_id)
    )
  ))
  from (select p_cron.payload as kept) p
$$;
comment on function duragraph.cron_payload(duragraph.crons) is
  'What a cron''s creator sent, with what was resolved: the assistant''s id, the merged metadata, configurable.cron_id.';
