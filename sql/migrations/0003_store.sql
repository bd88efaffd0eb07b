-- The key-value store. "C" on the labels: so the namespaces under a prefix are one range of the primary key, exactly, and
-- no character in a label means anything.

create table duragraph.store_items (
  tenant_id integer not null,
  namespace text[] collate "C" not null constraint store_items_namespace_not_empty check (cardinality(namespace) > 0),
  key text collate "C" not null constraint store_items_key_not_empty check (key <> ''),
  value jsonb not null constraint store_items_value_object check (jsonb_typeof(value) = 'object'),
  ttl double precision constraint store_items_ttl_positive check (ttl > 0),
  expires_at timestamptz,
  created_at timestamptz not null default now(),
  updated_at timestamptz not null default now(),
  constraint store_items_pkey primary key (tenant_id, namespace, key),
  constraint store_items_expires_by_ttl check ((ttl is null) = (expires_at is null))
) with (fillfactor = 90);
comment on table duragraph.store_items is 'What clients and graphs remember across threads: JSON objects by namespace and key.';
comment on column duragraph.store_items.namespace is 'The way to the item, from the root: labels that are not empty and hold no dot.';
comment on column duragraph.store_items.ttl is 'Minutes from the last write, or the last read that refreshes, until it expires; null: it stays.';
comment on column duragraph.store_items.expires_at is 'From then on nobody sees it; sweep_items() deletes it some time later.';
create index store_items_expiring on duragraph.store_items (expires_at) where expires_at is not null;
