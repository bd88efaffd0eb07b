create or replace function duragraph.update_writes(p_values json)
returns table (channel text, value json)
language plpgsql
immutable
as $$
begin
  if coalesce(json_typeof(p_values), 'null') = 'null' then
    return;
  elsif json_typeof(p_values) = 'object' then
    return query select e.key, e.value from json_each(p_values) e;
  elsif json_typeof(p_values) = 'array' and not exists (select from json_array_elements(p_values) e where json_typeof(e) <> 'object') then
    return query
      select w.key, w.value
      from json_array_elements(p_values) with ordinality u (writes, n), json_each(u.writes) with ordinality w (key, value, m)
      order by u.n, w.m;
  else
    raise exception using
      errcode = 'DG422',
      message = 'values must be an object of channels, a list of such objects, or null.',
      detail = '{"code":"invalid_type","field":"values"}';
  end if;
end
$$;
comment on function duragraph.update_writes(json) is 'The writes of an update''s values, in order.';
