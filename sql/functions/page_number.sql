create or replace function duragraph.page_number(p_op jsonb, p_field text, p_default integer, p_low integer, p_high integer)
returns integer
language plpgsql
stable
as $$
declare
  v_given jsonb := coalesce(nullif(p_op -> p_field, 'null'), to_jsonb(p_default));
begin
  if jsonb_typeof(v_given) <> 'number' or v_given::numeric <> trunc(v_given::numeric) or v_given::numeric not between p_low and p_high then
    raise exception using
      errcode = 'DG422',
      message = format('%s must be an integer from %s to %s.', p_field, p_low, p_high),
      detail = json_build_object('code', 'invalid_field', 'field', p_field);
  end if;
  return v_given::integer;
end
$$;
comment on function duragraph.page_number(jsonb, text, integer, integer, integer) is
  'An integer of a request, such as its limit; what it is when not given may be null.';
