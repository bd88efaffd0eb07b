create or replace function duragraph.uuid_at(p_at timestamptz) returns uuid
language sql immutable strict parallel safe as $$
  select (encode(substring(int8send((extract(epoch from p_at) * 1000)::bigint) from 3), 'hex') || '70000000000000000000')::uuid
$$;
comment on function duragraph.uuid_at(timestamptz) is 'The lowest UUIDv7 of that millisecond: turns a time into a bound on ids.';
