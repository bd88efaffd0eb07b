create or replace function duragraph.item_matches(p_value jsonb, p_fields text[], p_operators text[], p_wanted jsonb[])
returns boolean
language plpgsql
immutable
as $$
declare
  v_field jsonb;
begin
  -- A loop of simple expressions: this runs for each item under a prefix.
  for v_n in 1 .. cardinality(p_fields) loop
    v_field := p_value -> p_fields[v_n];
    if v_field is null then
      return false;
    elsif p_operators[v_n] is null then
      if not duragraph.value_matches(v_field, p_wanted[v_n]) then
        return false;
      end if;
    elsif duragraph.value_compares(v_field, p_operators[v_n], p_wanted[v_n]) is not true then
      return false;
    end if;
  end loop;
  return true;
end
$$;
comment on function duragraph.item_matches(jsonb, text[], text[], jsonb[]) is
  'Whether each of these fields of an item compares so, or where there is no operator, is as wanted; a missing one never.';
