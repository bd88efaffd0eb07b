create or replace function duragraph.message_of(p_message json)
returns jsonb
language plpgsql
volatile
as $$
declare
  v_given jsonb := case json_typeof(p_message)
    when 'string' then jsonb_build_object('type', 'human', 'content', p_message)
    when 'array' then jsonb_build_object('type', p_message -> 0, 'content', p_message -> 1)
    when 'object' then p_message::jsonb
  end;
  v_type text := duragraph.message_type(coalesce(v_given ->> 'type', v_given ->> 'role'));
begin
  if v_type is null then
    raise exception using
      errcode = 'DG422',
      message = 'A message must be a text, [role, text], or an object with content and a type or role.',
      hint = 'Roles are user, assistant, system and tool.',
      detail = '{"code":"invalid_message","field":"values"}';
  end if;
  return '{"content": "", "additional_kwargs": {}, "response_metadata": {}, "name": null}'::jsonb
    || case v_type
      when 'ai' then '{"tool_calls": [], "invalid_tool_calls": [], "usage_metadata": null}'::jsonb
      when 'tool' then '{"status": "success"}'::jsonb
      else '{}'::jsonb
    end
    || (v_given - 'role')
    || jsonb_build_object(
      'type', v_type, 'content', coalesce(nullif(v_given -> 'content', 'null'), '""'),
      'id', coalesce(v_given ->> 'id', gen_random_uuid()::text)
    );
end
$$;
comment on function duragraph.message_of(json) is
  'A message in the form that state keeps, with a type (user is human, assistant is ai) and an id, made when it has none.';
