create or replace function duragraph.item_ttl(p_op jsonb)
returns double precision
language plpgsql
stable
as $$
declare
  v_field text := case when coalesce(p_op -> 'ttl', 'null') <> 'null' then 'ttl' else 'ttl_seconds' end;
  v_given jsonb := coalesce(p_op -> v_field, 'null');
begin
  if v_given = 'null' then
    return null;
  end if;
  if jsonb_typeof(v_given) <> 'number' or v_given::numeric not between 0.000001 and 3153600000 then
    raise exception using
      errcode = 'DG422',
      message = format('%s must be a number above 0.', v_field),
      hint = 'ttl is in minutes; leave it out for an item that stays.',
      detail = json_build_object('code', 'invalid_ttl', 'field', v_field);
  end if;
  return v_given::double precision / case v_field when 'ttl' then 1 else 60 end;
end
$$;
comment on function duragraph.item_ttl(jsonb) is 'The time to live in a request, in minutes: its ttl, else its ttl_seconds; null without one.';
