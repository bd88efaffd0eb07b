create or replace function duragraph.resend_webhook(p_delivery uuid)
returns text
language plpgsql
as $$
begin
  update duragraph.webhook_deliveries d
  set status = 'pending', attempt = 0, next_attempt_at = duragraph.current_time(), settled_at = null
  where d.shard = duragraph.shard_of(p_delivery) and d.delivery_id = p_delivery
    and (d.status <> 'pending' or d.attempt = 0 or d.last_error is not null);
  if found then
    perform pg_notify('duragraph_webhooks', '');
    return format('Delivery %s is sent again, under the same id.', p_delivery);
  end if;
  perform from duragraph.webhook_deliveries d where d.shard = duragraph.shard_of(p_delivery) and d.delivery_id = p_delivery;
  return case
    when found then format('Delivery %s is being sent for the first time.', p_delivery)
    else format('There is no delivery %s; see duragraph.webhook_log.', p_delivery)
  end;
end
$$;
comment on function duragraph.resend_webhook(uuid) is
  'Send a webhook once more by hand, with all its attempts, whether it was delivered or failed. Says what was done.';
