create or replace function duragraph.json_path(p_path text)
returns text[]
language plpgsql
immutable
as $$
begin
  if p_path !~ '^(values|metadata|config|interrupts)(\.[^.\[\]]+|\[-?[0-9]{1,9}\])*$' then
    raise exception using
      errcode = 'DG422',
      message = '''' || p_path || ''' is not a path.',
      hint = 'Begin with values, metadata, config or interrupts: values.messages[-1].content.',
      detail = '{"code":"invalid_path","field":"extract"}';
  end if;
  return string_to_array(regexp_replace(p_path, '\[(-?[0-9]+)\]', '.\1', 'g'), '.');
end
$$;
comment on function duragraph.json_path(text) is '"values.log[-1]" as PostgreSQL''s path {values,log,-1}; refuses other forms.';
