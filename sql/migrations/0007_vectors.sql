-- What items mean, as vectors: written by workers that offer an embedder. No extension is needed to keep them; ranking by
-- them takes pgvector. They are stored as they are, for numbers like these do not compress.

create table duragraph.store_vectors (
  tenant_id integer not null,
  namespace text[] collate "C" not null,
  key text collate "C" not null,
  path text collate "C" not null,
  vector real[] not null constraint store_vectors_vector_not_empty check (cardinality(vector) > 0),
  constraint store_vectors_pkey primary key (tenant_id, namespace, key, path)
);
alter table duragraph.store_vectors alter column vector set storage external;
comment on table duragraph.store_vectors is 'What items of the store mean. They go with the value they were made of: who changes or deletes an item deletes them.';
comment on column duragraph.store_vectors.path is 'Where in the value the text was, as "title" or "chapters[*].text"; with a number behind it where there are several texts.';
comment on column duragraph.store_vectors.vector is 'What the embedder gave for the text, of length 1.';

alter table duragraph.store_items add column index_paths jsonb;
comment on column duragraph.store_items.index_paths is 'As it was put: null for the embedder''s own fields, false for none, else a list of paths.';
