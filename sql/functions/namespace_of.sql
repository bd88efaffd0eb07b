create or replace function duragraph.namespace_of(p_op jsonb, p_field text, p_whole boolean default false)
returns text[]
language plpgsql
stable
as $$
declare
  v_given jsonb := coalesce(nullif(p_op -> p_field, 'null'), '[]');
begin
  if jsonb_typeof(v_given) <> 'array' or jsonb_path_exists(v_given, 'strict $[*] ? (@.type() != "string")') then
    raise exception using
      errcode = 'DG422',
      message = format('%s must be a list of texts.', p_field),
      hint = 'For example ["users", "ann"].',
      detail = json_build_object('code', 'invalid_namespace', 'field', p_field);
  end if;
  if exists (select from jsonb_array_elements_text(v_given) label where label = '' or strpos(label, '.') > 0) then
    raise exception using
      errcode = 'DG422',
      message = format('%s: a label must be a non-empty text without periods.', p_field),
      hint = 'Make two labels of "a.b": ["a", "b"].',
      detail = json_build_object('code', 'invalid_namespace', 'field', p_field);
  end if;
  if p_whole and v_given = '[]' then
    raise exception using
      errcode = 'DG422',
      message = format('%s: it cannot be empty.', p_field),
      hint = 'An item needs at least one label, such as ["memories"].',
      detail = json_build_object('code', 'invalid_namespace', 'field', p_field);
  end if;
  return duragraph.text_array(v_given);
end
$$;
comment on function duragraph.namespace_of(jsonb, text, boolean) is
  'The namespace in that field of a request, its labels checked; a whole one has at least one label.';
