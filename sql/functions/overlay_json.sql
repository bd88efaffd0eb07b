create or replace function duragraph.overlay_json(p_object text, p_more text) returns text
language sql immutable parallel safe as $$
  select case
    when p_more is null or btrim(p_more) in ('null', '{}') then coalesce(p_object, '{}')
    when p_object is null or p_object = '{}' then p_more
    else left(p_object, -1) || ',' || substr(ltrim(p_more), 2) end
$$;
comment on function duragraph.overlay_json(text, text) is 'Members of one JSON object behind those of another, as text: the first must not have the keys of the second.';
