create or replace function duragraph.message_type(p_role text)
returns text
language sql
immutable
as $$
  select case p_role
    when 'user' then 'human'
    when 'human' then 'human'
    when 'assistant' then 'ai'
    when 'ai' then 'ai'
    when 'AIMessageChunk' then 'ai'
    when 'system' then 'system'
    when 'developer' then 'system'
    when 'tool' then 'tool'
    when 'function' then 'tool'
    when 'remove' then 'remove'
  end
$$;
comment on function duragraph.message_type(text) is 'The type of a message of that role, or of that type; null when there is none such.';
