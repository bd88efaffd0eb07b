create or replace function duragraph.value_matches(p_value jsonb, p_wanted jsonb)
returns boolean
language plpgsql
immutable
as $$
begin
  if p_value is null then
    return false;
  elsif jsonb_typeof(p_wanted) <> 'object' then
    return p_value = p_wanted;
  elsif exists (select from jsonb_object_keys(p_wanted) k where k like '$%') then
    return not exists (
      select from jsonb_each(p_wanted) o where not coalesce(duragraph.value_compares(p_value, o.key, o.value), false)
    );
  end if;
  return jsonb_typeof(p_value) = 'object' and not exists (
    select from jsonb_each(p_wanted) f where not duragraph.value_matches(p_value -> f.key, f.value)
  );
end
$$;
comment on function duragraph.value_matches(jsonb, jsonb) is
  'Whether a value is as wanted: the same; or as all operators say; or an object whose fields are as wanted. What is missing never is.';
