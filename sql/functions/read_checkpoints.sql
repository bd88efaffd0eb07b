create or replace function duragraph.read_checkpoints(p_tenant integer, p_run uuid, p_token bigint, p_reads json) returns json
language plpgsql stable
set enable_seqscan = off set jit = off as $$
declare
  v_lease duragraph.leases;
begin
  select l.* into v_lease from duragraph.leases l
    where l.shard = duragraph.shard_of(p_run) and l.run_id = p_run and l.tenant_id = p_tenant and l.token = p_token;
  if not found then
    raise exception using errcode = 'DG409', message = format('The lease of run %s is lost.', p_run),
      hint = 'Stop the run: it ended, or another worker has it.', detail = '{"code": "lease_lost", "field": "token"}';
  end if;
  return (
    select coalesce(json_agg(f.found order by r.n), '[]')
    from rows from (json_to_recordset(p_reads) as (checkpoint_ns text, checkpoint_id uuid, before uuid, filter jsonb, "limit" integer))
        with ordinality as r(checkpoint_ns, checkpoint_id, before, filter, "limit", n),
      lateral (
        select coalesce(json_agg(duragraph.saved_checkpoint(p.c) order by (p.c).checkpoint_id desc), '[]') as found
        from (
            select c from duragraph.checkpoints c
            where c.shard = v_lease.shard and c.tenant_id = p_tenant and c.thread_id = v_lease.thread_id
              and c.checkpoint_ns = coalesce(r.checkpoint_ns, '') and c.saved is not null
              and (r.checkpoint_id is null or c.checkpoint_id = r.checkpoint_id)
              and (r.before is null or c.checkpoint_id < r.before)
              and (r.filter is null or c.metadata || jsonb_build_object('source', c.source, 'step', c.step) @> r.filter)
            order by c.checkpoint_id desc
            limit least(coalesce(r."limit", 1), 1000)) p) f);
end $$;
comment on function duragraph.read_checkpoints(integer, uuid, bigint, json) is
  'What a hosted graph saved on the thread of a leased run: [{checkpoint_ns, checkpoint_id, before, filter, limit = 1}] -> for each an array of saved_checkpoint(), newest first. 409 lease_lost for a stale token.';
