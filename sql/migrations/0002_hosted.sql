-- Graphs of other libraries, hosted by a worker: what they save is kept as they wrote it, beside the rendering that the API shows.

alter table duragraph.checkpoints add column saved json;
comment on column duragraph.checkpoints.saved is 'Of a hosted graph: its own checkpoint without the channels, as its library wrote it. Never looked into here.';

alter table duragraph.channel_values add column saved json;
comment on column duragraph.channel_values.saved is 'Of a hosted graph: the content as its library serialised it, a text, or for a list one text an item; added to a base as the value is.';

create table duragraph.checkpoint_writes (
  shard smallint not null,
  tenant_id integer not null,
  thread_id uuid not null,
  checkpoint_id uuid not null,
  task_id uuid not null,
  idx integer not null,
  checkpoint_ns text not null default '',
  run_id uuid not null,
  task_path text not null default '',
  channel text not null,
  saved json not null,
  constraint checkpoint_writes_pkey primary key (shard, tenant_id, thread_id, checkpoint_id, task_id, idx)
);
comment on table duragraph.checkpoint_writes is 'Of hosted graphs: what finished tasks wrote before the superstep was complete, as their library serialised it.';
comment on column duragraph.checkpoint_writes.idx is 'Place among the writes of the task; negative for the library''s own channels, which a later write replaces.';

alter table duragraph.runs add column kind text not null default 'run' constraint runs_kind_known check (kind in ('run', 'update'));
comment on column duragraph.runs.kind is 'update: a change of state that only the graph''s code can make, done by a worker; the API does not list it.';
