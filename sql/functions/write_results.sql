create or replace function duragraph.write_results(p_writes json, p_done bigint[], p_ready boolean) returns json
language plpgsql stable as $$
declare
  v_refused json := '[]';
begin
  if json_array_length(p_writes) <> cardinality(p_done) then
    if exists (select 1 from json_to_recordset(p_writes) as x(token bigint, write_no integer) group by x.token
        having count(distinct x.write_no) > 1) then
      raise exception using errcode = 'DG409', message = 'Two writes of one run came in one batch.',
        hint = 'Send a run''s next write when the one before it is answered.', detail = '{"code": "write_order", "field": "write_no"}';
    end if;
    -- What the fence did not let through is either a repeat of something already written (fine) or late (refused).
    select coalesce(json_agg(json_build_object('n', x.n - 1, 'reason', 'lease_lost') order by x.n), '[]') into v_refused
    from rows from (json_to_recordset(p_writes) as (run_id uuid, token bigint, write_no integer, "end" json))
      with ordinality as x(run_id, token, write_no, "end", n)
    where not coalesce(x.token = any(p_done), false)
      and not exists (select 1 from duragraph.leases l where l.shard = duragraph.shard_of(x.run_id) and l.run_id = x.run_id
        and l.token = x.token and l.last_write >= x.write_no)
      and not (x."end" is not null and exists (select 1 from duragraph.runs r where r.shard = duragraph.shard_of(x.run_id)
        and r.run_id = x.run_id and r.token = x.token));
  end if;
  return json_build_object('refused', v_refused, 'ready', p_ready);
end $$;
comment on function duragraph.write_results(json, bigint[], boolean) is
  'The answer to a batch of writes, of which those with the tokens p_done were carried out: {refused: [{n: index in the batch, reason}], ready}. ready: something became claimable.';
