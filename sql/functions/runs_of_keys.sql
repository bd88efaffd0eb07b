create or replace function duragraph.runs_of_keys(p_tenant integer, p_requests json) returns json[]
language plpgsql as $$
begin
  -- One at a time for each key, in one order for all callers; the lock ends with the transaction.
  perform pg_advisory_xact_lock(hashtextextended(k.key, p_tenant)) from (
    select distinct r.idempotency_key as key from json_to_recordset(p_requests) as r(idempotency_key text)
    where r.idempotency_key is not null order by 1) k;
  return array(
    select case when i.run_id is null then null
      when i.request_hash is distinct from md5(coalesce(r.thread_id::text, '') || r.body::text) then 'false'::json
      else coalesce((select duragraph.run_json(x, duragraph.run_status(x.shard, x.run_id)) from duragraph.runs x
        where x.shard = duragraph.shard_of(i.run_id) and x.run_id = i.run_id), 'null'::json) end
    from rows from (json_to_recordset(p_requests) as (thread_id uuid, idempotency_key text, body json))
      with ordinality as r(thread_id, idempotency_key, body, n)
    left join duragraph.idempotency_keys i on i.tenant_id = p_tenant and i.idempotency_key = r.idempotency_key
    order by r.n);
end $$;
comment on function duragraph.runs_of_keys(integer, json) is
  'In order: null (new), the run that the key made, or false (the key was used for another request).';
