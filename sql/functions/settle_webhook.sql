create or replace function duragraph.settle_webhook(
  p_delivery uuid, p_attempt smallint, p_error text default null, p_final boolean default false
)
returns double precision
language plpgsql
set enable_seqscan = off
as $$
declare
  v_delay double precision := case
    when p_error is not null and not p_final then (duragraph.webhook_delays())[p_attempt] * (0.9 + random() * 0.2)
  end;
  v_now timestamptz := duragraph.current_time();
begin
  update duragraph.webhook_deliveries d
  set
    status = case when p_error is null then 'delivered' when v_delay is null then 'failed' else 'pending' end,
    next_attempt_at = v_now + make_interval(secs => v_delay),
    settled_at = case when v_delay is null then v_now end,
    last_error = p_error
  where d.shard = duragraph.shard_of(p_delivery) and d.delivery_id = p_delivery
    and d.status = 'pending' and d.attempt = p_attempt;
  return case when found then v_delay end;
end
$$;
comment on function duragraph.settle_webhook(uuid, smallint, text, boolean) is
  'What became of an attempt: delivered (no error), to be tried again after a while, or failed (final, or the last attempt).
Gives the seconds to the next attempt, if there is one. An attempt that was taken away changes nothing.';
