create or replace function duragraph.expiry_of(p_ttl jsonb)
returns timestamptz
language plpgsql
stable
as $$
begin
  if coalesce(p_ttl, 'null') = 'null' then
    return null;
  end if;
  if coalesce(jsonb_typeof(p_ttl -> 'ttl'), '') <> 'number' or (p_ttl ->> 'ttl')::numeric not between 0 and 52560000
    or coalesce(p_ttl ->> 'strategy', 'delete') not in ('delete', 'keep_latest')
  then
    raise exception using
      errcode = 'DG422',
      message = 'ttl must be {"ttl": minutes, "strategy": "delete" or "keep_latest"}.',
      hint = 'Minutes are from 0 to 52560000 (a hundred years).',
      detail = '{"code":"invalid_ttl","field":"ttl"}';
  end if;
  return duragraph.current_time() + (p_ttl ->> 'ttl')::double precision * interval '1 minute';
end
$$;
comment on function duragraph.expiry_of(jsonb) is 'When a thread with that {ttl: minutes, strategy} expires, counted from now; null without one.';
