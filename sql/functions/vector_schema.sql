create or replace function duragraph.vector_schema()
returns name
language sql
stable
as $$
  select n.nspname from pg_catalog.pg_extension e join pg_catalog.pg_namespace n on n.oid = e.extnamespace where e.extname = 'vector'
$$;
comment on function duragraph.vector_schema() is 'Where pgvector is installed in this database; null where it is not.';
