create or replace view duragraph.webhook_log as
select
  d.tenant_id,
  d.delivery_id,
  d.run_id,
  d.body ->> 'status' as run_status,
  d.url,
  d.status,
  d.attempt,
  d.next_attempt_at,
  d.last_error,
  d.created_at,
  d.settled_at
from duragraph.webhook_deliveries d;
comment on view duragraph.webhook_log is 'What webhooks were told, or are to be told, and what came of it. Send one again: select duragraph.resend_webhook(delivery_id).';
comment on column duragraph.webhook_log.status is 'pending, delivered, or failed: its attempts are used up, or its address may not be called.';
comment on column duragraph.webhook_log.next_attempt_at is 'When it is tried next, or, while a process is at it, when another one may.';
