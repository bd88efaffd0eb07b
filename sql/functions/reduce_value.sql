create or replace function duragraph.reduce_value(p_channel text, p_reducer text, p_type text, p_old json, p_new json)
returns json
language plpgsql
immutable
as $$
declare
  v_types text := p_type || ' ' || json_typeof(p_new);
begin
  if p_reducer = 'add' and v_types = 'number number' then
    return to_json((p_old #>> '{}')::numeric + (p_new #>> '{}')::numeric);
  elsif p_reducer = 'add' and v_types = 'string string' then
    return to_json((p_old #>> '{}') || (p_new #>> '{}'));
  elsif p_reducer = 'merge' and v_types = 'object object' then
    return (p_old::jsonb || p_new::jsonb)::json;
  end if;
  raise exception using
    errcode = 'DG422',
    message = 'Channel ''' || p_channel || ''' (' || p_reducer || ') holds a value of type ' || p_type
      || ', which cannot take one of type ' || json_typeof(p_new) || '.',
    hint = 'Send a value of the same type.',
    detail = json_build_object('code', 'invalid_type', 'field', 'values.' || p_channel)::text;
end
$$;
comment on function duragraph.reduce_value(text, text, text, json, json) is
  'A channel''s value (of type p_type) after an update, for the reducers add (numbers, texts) and merge (objects); 422 for other types.';
