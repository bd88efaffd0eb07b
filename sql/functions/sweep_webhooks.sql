create or replace function duragraph.sweep_webhooks(
  p_delivered interval default interval '7 days', p_failed interval default interval '30 days', p_limit integer default 1000
)
returns integer
language plpgsql
set enable_seqscan = off
as $$
declare
  v_gone integer;
begin
  delete from duragraph.webhook_deliveries d
  where d.ctid = any (array(
    select o.ctid
    from duragraph.webhook_deliveries o
    where o.status <> 'pending' and o.settled_at < duragraph.current_time() - least(p_delivered, p_failed)
      and o.settled_at < duragraph.current_time() - case o.status when 'delivered' then p_delivered else p_failed end
    order by o.settled_at
    limit p_limit
    for update skip locked
  ));
  get diagnostics v_gone = row_count;
  return v_gone;
end
$$;
comment on function duragraph.sweep_webhooks(interval, interval, integer) is
  'Forgets deliveries that were settled so long ago. Answers how many.';
