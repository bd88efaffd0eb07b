create or replace function duragraph.forget_vectors(p_tenant integer, p_namespace text[], p_key text)
returns void
language plpgsql
set enable_seqscan = off
as $$
begin
  delete from duragraph.store_vectors v where v.tenant_id = p_tenant and v.namespace = p_namespace and v.key = p_key;
end
$$;
comment on function duragraph.forget_vectors(integer, text[], text) is
  'Deletes the vectors of an item that its caller has changed: after that, so that it sees those that were written until then.';
