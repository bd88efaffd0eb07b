create or replace function duragraph.prune_threads(p_tenant integer, p_request json)
returns json
language plpgsql
as $$
declare
  v_strategy text := coalesce(p_request ->> 'strategy', 'delete');
  v_thread uuid;
  v_pruned integer := 0;
begin
  if v_strategy not in ('delete', 'keep_latest') then
    raise exception using
      errcode = 'DG422',
      message = 'Unknown strategy ''' || v_strategy || '''.',
      hint = 'Use delete or keep_latest.',
      detail = '{"code":"invalid_strategy","field":"strategy"}';
  end if;
  for v_thread in
    select x.thread_id
    from (select distinct i.id::uuid as thread_id from json_array_elements_text(p_request -> 'thread_ids') i (id)) x
    order by duragraph.shard_of(x.thread_id), x.thread_id
  loop
    v_pruned := v_pruned + duragraph.prune_thread(p_tenant, v_thread, v_strategy)::integer;
  end loop;
  return json_build_object('pruned_count', v_pruned);
end
$$;
comment on function duragraph.prune_threads(integer, json) is
  'Prunes {thread_ids, strategy: delete (default) or keep_latest}: {pruned_count}. Threads that are busy or not there are left out.';
