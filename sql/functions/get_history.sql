create or replace function duragraph.get_history(p_tenant integer, p_thread uuid, p_request jsonb default '{}')
returns json
language plpgsql
stable
set enable_seqscan = off set jit = off
as $$
declare
  v_thread duragraph.threads := duragraph.find_thread(p_tenant, p_thread);
  v_point record := duragraph.checkpoint_point(p_request -> 'checkpoint', 'checkpoint');
  v_before record := duragraph.checkpoint_point(p_request -> 'before', 'before');
  v_metadata jsonb := nullif(nullif(p_request -> 'metadata', 'null'), '{}');
  v_head uuid := duragraph.thread_head(v_thread);
  v_select text[] := duragraph.text_array(p_request -> 'select');
  v_mark duragraph.checkpoints;
begin
  select * into v_mark from duragraph.checkpoints c
  where c.shard = v_thread.shard and c.tenant_id = p_tenant and c.thread_id = p_thread
    and c.checkpoint_ns = v_point.checkpoint_ns and c.checkpoint_id = v_before.checkpoint_id;
  return coalesce((
    select json_agg(
      duragraph.selected_state(
        duragraph.state_json(
          v_thread.shard, p_tenant, p_thread, v_point.checkpoint_ns, page.checkpoint_id,
          case when v_thread.status = 'error' and page.checkpoint_id = v_head then v_thread.error end
        ),
        v_select
      )
      order by page.created_at desc, page.step desc, page.checkpoint_id desc
    )
    from (
      select c.checkpoint_id, c.created_at, c.step
      from duragraph.checkpoints c
      where c.shard = v_thread.shard and c.tenant_id = p_tenant and c.thread_id = p_thread
        and c.checkpoint_ns = v_point.checkpoint_ns
        and (v_point.checkpoint_id is null or c.checkpoint_id = v_point.checkpoint_id)
        and case
          when v_before.checkpoint_id is null then true
          when v_mark.checkpoint_id is null then c.checkpoint_id < v_before.checkpoint_id
          else (c.created_at, c.step, c.checkpoint_id) < (v_mark.created_at, v_mark.step, v_mark.checkpoint_id)
        end
        and (v_metadata is null or duragraph.checkpoint_metadata(c) @> v_metadata)
      -- By time first: ids are made by workers, whose clocks and ways of making them differ.
      order by c.created_at desc, c.step desc, c.checkpoint_id desc
      limit coalesce((p_request ->> 'limit')::integer, 10)
    ) page
  ), '[]');
end
$$;
comment on function duragraph.get_history(integer, uuid, jsonb) is
  'States of a thread, newest first: {limit = 10, before (an id, a checkpoint, or {configurable}), metadata, checkpoint (a namespace or one point), select}.';
