create or replace function duragraph.write_results(p_writes json, p_done uuid[], p_ready boolean) returns json
language plpgsql stable as $$
declare
  v_refused json := '[]';
begin
  if json_array_length(p_writes) <> cardinality(p_done) then
    -- What the fence did not let through is either a repeat of something already written (fine) or late (refused).
    select coalesce(json_agg(json_build_object('n', x.n - 1, 'reason', 'lease_lost') order by x.n), '[]') into v_refused
    from rows from (json_to_recordset(p_writes) as (run_id uuid, token bigint, write_no integer, "end" json))
      with ordinality as x(run_id, token, write_no, "end", n)
    where not coalesce(x.run_id = any(p_done), false)
      and not exists (select 1 from duragraph.leases l where l.shard = duragraph.shard_of(x.run_id) and l.run_id = x.run_id
        and l.token = x.token and l.last_write >= x.write_no)
      and not (x."end" is not null and exists (select 1 from duragraph.runs r where r.shard = duragraph.shard_of(x.run_id)
        and r.run_id = x.run_id and r.token = x.token));
  end if;
  return json_build_object('refused', v_refused, 'ready', p_ready);
end $$;
comment on function duragraph.write_results(json, uuid[], boolean) is
  'The answer to a batch of writes: {refused: [{n: index in the batch, reason}], ready}. ready: something became claimable.';
