create or replace function duragraph.make_id(p_shard smallint default null) returns uuid
language sql volatile parallel safe as $$
  -- random(), not gen_random_uuid(): ids are names, not secrets, and a read of the system's random source costs five times as much.
  select (lpad(to_hex(floor(date_part('epoch', clock_timestamp()) * 1000)::bigint), 12, '0')
    || to_hex(28672 + coalesce(p_shard, floor(random() * 4096)::integer))
    || to_hex(-9223372036854775808 + (date_part('microseconds', clock_timestamp())::bigint % 1000 << 52) + floor(random() * 4503599627370496)::bigint))::uuid
$$;
comment on function duragraph.make_id(smallint) is 'A UUIDv7: 48 bits of milliseconds, the shard, 10 bits of microseconds, 52 random bits. Without a shard, a random one.';
