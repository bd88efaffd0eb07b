create or replace function duragraph.checkpoint_metadata(p_checkpoint duragraph.checkpoints)
returns jsonb
language sql
stable
set enable_seqscan = off set jit = off
as $$
  select '{"parents": {}}'::jsonb
    || coalesce((
      select r.metadata from duragraph.runs r
      where r.shard = duragraph.shard_of(p_checkpoint.run_id) and r.run_id = p_checkpoint.run_id
    ), '{}')
    || case when p_checkpoint.run_id is null then '{}' else jsonb_build_object('run_id', p_checkpoint.run_id) end
    || p_checkpoint.metadata
    || jsonb_build_object(
      'source', p_checkpoint.source, 'step', p_checkpoint.step, 'thread_id', p_checkpoint.thread_id
    )
$$;
comment on function duragraph.checkpoint_metadata(duragraph.checkpoints) is
  'A checkpoint''s metadata as the API shows it and filters by: source, step, parents, thread_id, run_id, the run''s metadata (with graph_id and assistant_id) and what was stored with it.';
