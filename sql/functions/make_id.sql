create or replace function duragraph.make_id(p_shard smallint default null) returns uuid
language sql volatile parallel safe as $$
  -- random(), not gen_random_uuid(): ids are names, not secrets, and a read of the system's random source costs five times as much.
  select (substr(encode(int8send(floor(date_part('epoch', clock_timestamp()) * 1000)::bigint), 'hex'), 5)
    || to_hex(28672 + coalesce(p_shard, floor(random() * 4096)::integer))
    || to_hex(32768 + (date_part('microseconds', clock_timestamp())::integer % 1000) * 16 + floor(random() * 16)::integer)
    || lpad(to_hex(floor(random() * 281474976710656)::bigint), 12, '0'))::uuid
$$;
comment on function duragraph.make_id(smallint) is 'A UUIDv7: 48 bits of milliseconds, the shard, 10 bits of microseconds, 52 random bits. Without a shard, a random one.';
