-- The lock, the schema and the record of migrations: what every later file stands on.

-- Taken before "create schema if not exists", which fails when two sessions race for it. Held to the end of the transaction.
do $$
begin
  perform pg_advisory_xact_lock(hashtextextended('duragraph.migrate', 0));
end
$$;

create schema if not exists duragraph;
comment on schema duragraph is 'DuraGraph: durable execution of agent graphs. \dt+ \df+ \dv+ duragraph.* are the manual.';

create table if not exists duragraph.migrations (
  version integer not null
    constraint migrations_pkey primary key
    constraint migrations_version_positive check (version > 0),
  name text not null,
  checksum text not null,
  applied_at timestamptz not null default now()
);
comment on table duragraph.migrations is 'Which migrations are applied; the highest version is the version of the schema.';
comment on column duragraph.migrations.checksum is 'SHA-256 of the file as it was applied: a migration is never edited afterwards.';
