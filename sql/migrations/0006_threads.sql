-- What changed a thread from outside its runs, so that the thread's stream can show it, at any time again.

create table duragraph.state_updates (
  shard smallint not null,
  tenant_id integer not null,
  thread_id uuid not null,
  update_id uuid not null,
  checkpoint_id uuid not null,
  updated_at timestamptz not null,
  constraint state_updates_pkey primary key (shard, tenant_id, thread_id, update_id)
);
comment on table duragraph.state_updates is 'State changes made from outside: a frame of the thread''s stream each, between those of its runs.';
comment on column duragraph.state_updates.update_id is 'UUIDv7, as the id of a run: gives the frame its place and its id.';
comment on column duragraph.state_updates.checkpoint_id is 'The checkpoint it made: the state that the frame shows.';
