create or replace function duragraph.cron_run(p_cron duragraph.crons)
returns json
language sql
immutable
as $$
  select json_build_object(
    'assistant_id', p_cron.assistant_id,
    'metadata', p_cron.metadata || jsonb_build_object('cron_id', p_cron.cron_id),
    'on_completion', p_cron.on_run_completed,
    'input', p.l -> 'input',
    'config', p.l -> 'config',
    'context', case
      when coalesce(nullif((p.l -> 'context')::jsonb, 'null'), '{}') <> '{}'
        then (p.l -> 'context')::jsonb || jsonb_build_object('cron_id', p_cron.cron_id)
    end,
    'webhook', p.l -> 'webhook',
    'interrupt_before', p.l -> 'interrupt_before',
    'interrupt_after', p.l -> 'interrupt_after',
    'multitask_strategy', p.l -> 'multitask_strategy',
    'stream_mode', p.l -> 'stream_mode',
    'stream_subgraphs', p.l -> 'stream_subgraphs',
    'stream_resumable', p.l -> 'stream_resumable',
    'durability', p.l -> 'durability',
    'checkpoint_during', p.l -> 'checkpoint_during'
  )
  from (select p_cron.payload as l) p
$$;
comment on function duragraph.cron_run(duragraph.crons) is
  'The body of the run that a cron makes: of what its creator sent, only what a cron may ask.';
