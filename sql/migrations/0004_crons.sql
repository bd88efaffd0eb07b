-- Crons: schedules that make runs. Few and small, so they live in one place and have no shard.

create table duragraph.crons (
  tenant_id integer not null,
  cron_id uuid not null,
  assistant_id uuid not null,
  thread_id uuid,
  schedule text not null constraint crons_schedule_length check (length(schedule) between 1 and 200),
  timezone text,
  on_run_completed text constraint crons_on_run_completed_known check (on_run_completed in ('delete', 'keep')),
  enabled boolean not null default true,
  end_time timestamptz,
  next_run_date timestamptz,
  payload json not null,
  metadata jsonb not null default '{}' constraint crons_metadata_object check (jsonb_typeof(metadata) = 'object'),
  user_id text not null default '',
  last_fired_at timestamptz,
  last_run_id uuid,
  last_error json,
  created_at timestamptz not null default now(),
  updated_at timestamptz not null default now(),
  constraint crons_pkey primary key (tenant_id, cron_id),
  constraint crons_stateless_decides_on_thread check ((thread_id is null) = (on_run_completed is not null)),
  constraint crons_next_before_end check (next_run_date <= end_time)
);
comment on table duragraph.crons is 'Schedules that make runs: on a thread, or each time on a new one.';
comment on column duragraph.crons.timezone is 'IANA name in whose wall clock the schedule is read; null: UTC.';
comment on column duragraph.crons.on_run_completed is 'What becomes of the thread that each firing makes: delete or keep. Null for a cron of a thread.';
comment on column duragraph.crons.next_run_date is 'The next tick, and the guard of firing: who fires a tick advances it in the same transaction. Null: there is none before end_time.';
comment on column duragraph.crons.payload is 'What its creator sent, with the assistant''s id and configurable.cron_id in it: the body of the runs.';
comment on column duragraph.crons.last_error is 'Why its last tick made no run: {error, message, at}. Null when it did.';
create index crons_due on duragraph.crons (next_run_date) where enabled;
create index crons_of_thread on duragraph.crons (tenant_id, thread_id) where thread_id is not null;
create index crons_of_assistant on duragraph.crons (tenant_id, assistant_id);
