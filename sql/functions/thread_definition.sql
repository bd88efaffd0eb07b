create or replace function duragraph.thread_definition(p_thread duragraph.threads, p_base uuid)
returns jsonb
language plpgsql
stable
as $$
declare
  v_graph text := coalesce(p_thread.metadata ->> 'graph_id', (
    select duragraph.checkpoint_metadata(c) ->> 'graph_id' from duragraph.checkpoints c
    where c.shard = p_thread.shard and c.tenant_id = p_thread.tenant_id and c.thread_id = p_thread.thread_id
      and c.checkpoint_ns = '' and c.checkpoint_id = p_base
  ));
begin
  if v_graph is null then
    raise exception using
      errcode = 'DG400',
      message = 'Thread ''' || p_thread.thread_id || ''' has no assigned graph ID.',
      hint = 'This usually occurs when no runs have been made on this particular thread. Create a run first, or set metadata.graph_id.',
      detail = '{"code":"thread_without_graph","field":"thread_id"}';
  end if;
  return (duragraph.find_graph(p_thread.tenant_id, v_graph)).definition;
end
$$;
comment on function duragraph.thread_definition(duragraph.threads, uuid) is
  'The definition of the graph that a thread belongs to; 400 when no graph has touched it.';
