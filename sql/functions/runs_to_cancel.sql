create or replace function duragraph.runs_to_cancel(p_tenant integer, p_request jsonb)
returns table (run_id uuid, thread_id uuid, temporary boolean)
language sql stable
set enable_seqscan = off set enable_hashjoin = off set enable_mergejoin = off set jit = off as $$
  -- tenant_id + 0: a run is looked up by its key, never by its tenant.
  select r.run_id, r.thread_id, r.temporary
  from jsonb_array_elements_text(p_request -> 'run_ids') i, duragraph.runs r
  where r.shard = any(array[duragraph.shard_of(i::uuid)]) and r.run_id = i::uuid and r.tenant_id + 0 = p_tenant and r.status = 'pending'
    and (p_request ->> 'thread_id' is null or r.thread_id = (p_request ->> 'thread_id')::uuid)
  union
  select r.run_id, r.thread_id, r.temporary from duragraph.runs r
  where p_request -> 'run_ids' is null and p_request ->> 'thread_id' is not null and r.shard = duragraph.shard_of((p_request ->> 'thread_id')::uuid)
    and r.tenant_id = p_tenant and r.thread_id = (p_request ->> 'thread_id')::uuid and r.status = 'pending' and not r.temporary
  union
  select r.run_id, r.thread_id, r.temporary
  from (select l.shard, l.run_id from duragraph.leases l where p_request ->> 'status' in ('running', 'all')
    union all select q.shard, q.run_id from duragraph.ready q where p_request ->> 'status' in ('pending', 'all')
    union all select w.shard, w.run_id from duragraph.waiting w where p_request ->> 'status' in ('pending', 'all')
    union all select s.shard, s.run_id from duragraph.scheduled s where p_request ->> 'status' in ('pending', 'all')) x, duragraph.runs r
  where p_request -> 'run_ids' is null and p_request ->> 'thread_id' is null and r.shard = any(array[x.shard]) and r.run_id = x.run_id
    and r.tenant_id + 0 = p_tenant and r.status = 'pending' and r.kind = 'run'
$$;
comment on function duragraph.runs_to_cancel(integer, jsonb) is 'The runs a cancel request means that have not ended: a state change that a worker makes only when it or its thread is named.';
