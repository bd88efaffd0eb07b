create or replace function duragraph.static_next(p_definition jsonb, p_node text)
returns text[]
language plpgsql
immutable
as $$
declare
  v_node text := case when p_node = '__input__' then '__start__' else p_node end;
begin
  if v_node = '__end__' then
    return array[]::text[];
  end if;
  if v_node <> '__start__' and not coalesce(p_definition -> 'nodes', '[]') @> jsonb_build_array(jsonb_build_object('id', v_node)) then
    raise exception using
      errcode = 'DG400',
      message = 'The graph has no node ''' || v_node || '''.',
      hint = 'GET /assistants/{assistant_id}/graph names its nodes.',
      detail = '{"code":"unknown_node","field":"as_node"}';
  end if;
  if exists (select from duragraph.graph_edges(p_definition) e where e.source = v_node and e.conditional) then
    raise exception using
      errcode = 'DG422',
      message = 'What follows node ''' || v_node || ''' is decided by the graph''s code, which only a worker has.',
      hint = 'Leave as_node out, or name a node whose edges are not conditional.',
      detail = '{"code":"worker_needed","field":"as_node"}';
  end if;
  return array(
    select e.target from duragraph.graph_edges(p_definition) e where e.source = v_node and e.target <> '__end__' order by e.n
  );
end
$$;
comment on function duragraph.static_next(jsonb, text) is
  'The nodes that follow a node by unconditional edges. 400 for an unknown node, 422 where code decides.';
