create or replace function duragraph.assistant_settings(p_request jsonb, out config jsonb, out context jsonb)
language plpgsql
immutable
as $$
declare
  v_configurable jsonb := p_request -> 'config' -> 'configurable';
begin
  config := coalesce(nullif(p_request -> 'config', 'null'), '{}');
  context := coalesce(nullif(p_request -> 'context', 'null'), '{}');
  if jsonb_typeof(config) <> 'object' or jsonb_typeof(context) <> 'object' then
    raise exception using
      errcode = 'DG422',
      message = 'config and context must be objects.',
      detail = '{"code":"invalid_type","field":"config"}';
  end if;
  if context <> '{}' and coalesce(v_configurable, '{}') not in ('{}', 'null') then
    raise exception using
      errcode = 'DG400',
      message = 'Cannot specify both configurable and context.',
      hint = 'Give one of them: each shows in the other.',
      detail = '{"code":"context_and_configurable","field":"context"}';
  end if;
  if context <> '{}' then
    config := config || jsonb_build_object('configurable', context);
  elsif jsonb_typeof(v_configurable) = 'object' then
    context := v_configurable;
  end if;
end
$$;
comment on function duragraph.assistant_settings(jsonb) is
  'config and context of a request, each mirrored in the other (context is config.configurable); both at once is 400.';
