create or replace function duragraph.namespace_after(p_prefix text[])
returns text[]
language sql
immutable
parallel safe
as $$
  -- In "C" nothing lies between a label and the same with the smallest character there is.
  select p_prefix[: cardinality(p_prefix) - 1] || (p_prefix[cardinality(p_prefix)] || chr(1))
$$;
comment on function duragraph.namespace_after(text[]) is
  'The least namespace behind all that begin with these labels: they are the range from the prefix to it.';
