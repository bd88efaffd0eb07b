create or replace function duragraph.create_keyed_runs(p_tenant integer, p_requests json, p_old json[]) returns json
language plpgsql as $$
declare
  v_out json[] := '{}';
  v_seen jsonb := '{}';
  v_made json;
  v_req record;
begin
  -- Thread by thread, in the order in which everybody locks slots; on a thread as they came.
  for v_req in
    select r.*, p_old[r.n] as old, md5(coalesce(r.thread_id::text, '') || r.body::text) as hash
    from rows from (json_to_recordset(p_requests) as (thread_id uuid, idempotency_key text, request_id text, brief boolean, body json))
      with ordinality as r(thread_id, idempotency_key, request_id, brief, body, n)
    order by duragraph.shard_of(r.thread_id), r.thread_id, r.n
  loop
    v_made := coalesce(v_req.old, (v_seen -> v_req.idempotency_key -> 'run')::json);
    if v_made::text = 'false' or v_seen -> v_req.idempotency_key ->> 'hash' <> v_req.hash then
      raise exception using errcode = 'DG422', message = format('Idempotency key %s was used for another request.', v_req.idempotency_key),
        hint = 'Use a new key for a new request; repeat a request with its key unchanged.',
        detail = '{"code": "idempotency_key_reused", "field": "Idempotency-Key"}';
    end if;
    if v_made is null or v_made::text = 'null' then
      v_made := duragraph.create_runs(p_tenant, json_build_array(
        json_build_object('thread_id', v_req.thread_id, 'request_id', v_req.request_id, 'brief', v_req.brief, 'body', v_req.body))) -> 0;
      if v_req.idempotency_key is not null then
        insert into duragraph.idempotency_keys (tenant_id, idempotency_key, run_id, request_hash)
          values (p_tenant, v_req.idempotency_key, (v_made ->> 'run_id')::uuid, v_req.hash)
          on conflict (tenant_id, idempotency_key) do update set run_id = excluded.run_id, request_hash = excluded.request_hash,
            created_at = excluded.created_at;
        v_seen := v_seen || jsonb_build_object(v_req.idempotency_key, jsonb_build_object('hash', v_req.hash, 'run', v_made));
      end if;
    end if;
    v_out[v_req.n] := v_made;
  end loop;
  return array_to_json(v_out);
end $$;
comment on function duragraph.create_keyed_runs(integer, json, json[]) is 'create_runs() one by one: for requests with idempotency keys (a known key gives its run again), and for strategies that meet other runs of their own batch.';
