create or replace function duragraph.item_matches(p_value jsonb, p_filter jsonb)
returns boolean
language sql
immutable
as $$
  select not exists (select from jsonb_each(p_filter) f where not duragraph.value_matches(p_value -> f.key, f.value))
$$;
comment on function duragraph.item_matches(jsonb, jsonb) is 'Whether the fields of an item are as the filter of a search wants them.';
