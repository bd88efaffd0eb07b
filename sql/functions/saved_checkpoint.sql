create or replace function duragraph.saved_checkpoint(p_checkpoint duragraph.checkpoints) returns json
language sql stable
set enable_seqscan = off set jit = off as $$
  select json_build_object(
    'checkpoint_ns', p_checkpoint.checkpoint_ns, 'checkpoint_id', p_checkpoint.checkpoint_id,
    'parent_checkpoint_id', p_checkpoint.parent_checkpoint_id, 'step', p_checkpoint.step, 'source', p_checkpoint.source,
    'metadata', p_checkpoint.metadata, 'saved', p_checkpoint.saved,
    'channels', (
      select ('{' || coalesce(string_agg(to_json(k.key)::text || ':' || s.saved, ',') filter (where s.saved is not null), '') || '}')::json
      from jsonb_each_text(p_checkpoint.channels) k, lateral (
        select duragraph.channel_saved(p_checkpoint.shard, p_checkpoint.tenant_id, p_checkpoint.thread_id, p_checkpoint.checkpoint_ns,
          k.key, k.value::uuid) as saved offset 0) s),
    'writes', (
      select coalesce(json_agg(json_build_array(w.task_id, w.task_path, w.idx, w.channel, w.saved, w.run_id) order by w.task_path, w.task_id, w.idx), '[]')
      from duragraph.checkpoint_writes w
      where w.shard = p_checkpoint.shard and w.tenant_id = p_checkpoint.tenant_id and w.thread_id = p_checkpoint.thread_id
        and w.checkpoint_id = p_checkpoint.checkpoint_id and w.checkpoint_ns = p_checkpoint.checkpoint_ns))
$$;
comment on function duragraph.saved_checkpoint(duragraph.checkpoints) is
  'A hosted graph''s checkpoint as its library saved it: {checkpoint_ns, checkpoint_id, parent_checkpoint_id, step, source, metadata, saved, channels: {name: saved}, writes: [[task_id, task_path, idx, channel, saved, run_id]]}.';
