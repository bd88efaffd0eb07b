create or replace function duragraph.embedder(p_tenant integer, p_silence interval default '0')
returns duragraph.graphs
language plpgsql
stable
set enable_seqscan = off
set jit = off
as $$
declare
  v_graph duragraph.graphs;
begin
  select g.* into v_graph from duragraph.graphs g where g.tenant_id = p_tenant and g.graph_id = '__embed__';
  if found and not exists (
    select from duragraph.workers w
    join duragraph.worker_heartbeats h on h.worker_key = w.worker_key
    where w.tenant_id = p_tenant and v_graph.graph_key = any(w.graph_keys)
      and h.expires_at + p_silence > duragraph.current_time() and (w.status = 'active' or p_silence > '0')
  ) then
    return null;
  end if;
  return v_graph;
end
$$;
comment on function duragraph.embedder(integer, interval) is
  'The graph that embeds texts, __embed__, if a worker that serves it is there, or was no longer ago than p_silence; else null.';
