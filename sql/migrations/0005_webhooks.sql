-- Webhooks: whom to tell when a run has ended, and what became of telling them.

create table duragraph.webhooks (
  shard smallint not null,
  run_id uuid not null,
  url text not null,
  constraint webhooks_pkey primary key (shard, run_id)
) with (autovacuum_vacuum_scale_factor = 0.01, autovacuum_vacuum_threshold = 500, autovacuum_vacuum_cost_delay = 0);
comment on table duragraph.webhooks is 'Runs that have not ended and whose end is to be announced. While it is empty, ends cost no more than without it.';

create table duragraph.webhook_deliveries (
  shard smallint not null,
  delivery_id uuid not null,
  tenant_id integer not null,
  run_id uuid not null,
  url text not null,
  status text not null default 'pending' constraint webhook_deliveries_status_known check (status in ('pending', 'delivered', 'failed')),
  attempt smallint not null default 0 constraint webhook_deliveries_attempt_not_negative check (attempt >= 0),
  next_attempt_at timestamptz,
  last_error text,
  body json not null,
  created_at timestamptz not null default now(),
  settled_at timestamptz,
  constraint webhook_deliveries_pkey primary key (shard, delivery_id),
  constraint webhook_deliveries_pending_has_time check ((status = 'pending') = (next_attempt_at is not null)),
  constraint webhook_deliveries_settled_when check ((status = 'pending') = (settled_at is null)),
  constraint webhook_deliveries_failed_has_reason check (status <> 'failed' or last_error is not null)
) with (fillfactor = 80, autovacuum_vacuum_scale_factor = 0.01, autovacuum_vacuum_threshold = 500);
comment on table duragraph.webhook_deliveries is 'Ends of runs to be told to their webhooks: written with the end itself, delivered at least once. See webhook_log and resend_webhook().';
comment on column duragraph.webhook_deliveries.delivery_id is 'The webhook-id that the receiver sees, the same at each attempt.';
comment on column duragraph.webhook_deliveries.attempt is 'Attempts begun: spent when a process takes the delivery, and so also when it dies with it.';
comment on column duragraph.webhook_deliveries.next_attempt_at is 'When it may be taken; while a process has it, when it is taken from it.';
comment on column duragraph.webhook_deliveries.body is 'What is sent, as it was when the run ended: the thread goes on, and a rolled back run is gone.';
create index webhook_deliveries_due on duragraph.webhook_deliveries (next_attempt_at) where status = 'pending';
create index webhook_deliveries_settled on duragraph.webhook_deliveries (settled_at) where status <> 'pending';
create index webhook_deliveries_of_run on duragraph.webhook_deliveries (shard, run_id);
