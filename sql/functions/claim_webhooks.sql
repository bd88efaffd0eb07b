create or replace function duragraph.claim_webhooks(p_limit integer default 20, p_seconds double precision default 30)
returns table (delivery_id uuid, attempt smallint, url text, body text)
language plpgsql
set enable_seqscan = off
set jit = off
as $$
declare
  v_now timestamptz := duragraph.current_time();
begin
  return query
  with due as materialized (
    select d.shard, d.delivery_id, d.attempt
    from duragraph.webhook_deliveries d
    where d.status = 'pending' and d.next_attempt_at <= v_now
    order by d.next_attempt_at
    limit p_limit
    for update skip locked
  ),
  spent as (
    update duragraph.webhook_deliveries d
    set
      status = 'failed', next_attempt_at = null, settled_at = v_now,
      last_error = coalesce(d.last_error || '; then ', '') || 'the process that had it died'
    from due
    where d.shard = any (array[due.shard]) and d.delivery_id = due.delivery_id
      and due.attempt >= cardinality(duragraph.webhook_delays()) + 1
  )
  update duragraph.webhook_deliveries d
  set attempt = d.attempt + 1, next_attempt_at = v_now + make_interval(secs => p_seconds)
  from due
  where d.shard = any (array[due.shard]) and d.delivery_id = due.delivery_id
    and due.attempt < cardinality(duragraph.webhook_delays()) + 1
  returning d.delivery_id, d.attempt, d.url,
    duragraph.merged_json(d.body, json_build_object('webhook_sent_at', duragraph.iso(v_now)))::text;
end
$$;
comment on function duragraph.claim_webhooks(integer, double precision) is
  'Takes deliveries whose time has come, for so many seconds: whoever does not settle one in time loses it to the next, and with it an attempt.';
