create or replace function duragraph.namespace_matches(p_namespace text[], p_prefix text[], p_suffix text[])
returns boolean
language sql
immutable
parallel safe
as $$
  select cardinality(p_namespace) >= greatest(cardinality(p_prefix), cardinality(p_suffix))
    and not exists (select from generate_subscripts(p_prefix, 1) n where p_prefix[n] not in ('*', p_namespace[n]))
    and not exists (
      select from generate_subscripts(p_suffix, 1) n
      where p_suffix[n] not in ('*', p_namespace[cardinality(p_namespace) - cardinality(p_suffix) + n])
    )
$$;
comment on function duragraph.namespace_matches(text[], text[], text[]) is
  'Whether a namespace begins and ends with these labels; "*" stands for any one label.';
