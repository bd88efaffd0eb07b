create or replace function duragraph.make_id(p_shard smallint default null) returns uuid
language sql volatile parallel safe as $$
  select (lpad(to_hex((extract(epoch from clock_timestamp()) * 1000)::bigint), 12, '0')
    || to_hex(28672 + coalesce(p_shard, floor(random() * 4096)::integer))
    || to_hex(32768 + (date_part('microseconds', clock_timestamp())::integer % 1000) * 16 + floor(random() * 16)::integer)
    || substr(gen_random_uuid()::text, 25))::uuid
$$;
comment on function duragraph.make_id(smallint) is 'A UUIDv7: 48 bits of milliseconds, the shard, 10 bits of microseconds, 52 random bits. Without a shard, a random one.';
