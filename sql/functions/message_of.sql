create or replace function duragraph.message_of(p_message json)
returns jsonb
language plpgsql
volatile
as $$
declare
  v_message jsonb := case json_typeof(p_message)
    when 'string' then jsonb_build_object('type', 'human', 'content', p_message #> '{}')
    when 'object' then p_message::jsonb
  end;
  v_type text := coalesce(v_message ->> 'type', v_message ->> 'role');
begin
  if v_type is null then
    raise exception using
      errcode = 'DG422',
      message = 'A message must be a text or an object with a type (or role) and content.',
      detail = '{"code":"invalid_message","field":"values"}';
  end if;
  return jsonb_build_object('id', gen_random_uuid()) || jsonb_strip_nulls(jsonb_build_object('id', v_message -> 'id'))
    || (v_message - 'role' - 'id')
    || jsonb_build_object('type', case v_type when 'user' then 'human' when 'assistant' then 'ai' else v_type end);
end
$$;
comment on function duragraph.message_of(json) is
  'A message in the stored form: a type (user is human, assistant is ai) and an id, made when it has none.';
