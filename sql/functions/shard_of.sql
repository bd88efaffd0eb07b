create or replace function duragraph.shard_of(p_id uuid) returns smallint
language sql immutable strict parallel safe as $$
  select (((get_byte(uuid_send(p_id), 6) & 15) << 8) | get_byte(uuid_send(p_id), 7))::smallint
$$;
comment on function duragraph.shard_of(uuid) is 'Shard 0..4095 of an id: the 12 bits behind the version nibble. Ids we make carry it there; in a client''s random id those bits are random.';
