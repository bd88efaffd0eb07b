create or replace function duragraph.queue_ord(p_priority integer default 0) returns bigint
language sql volatile as $$
  select ((32767 - least(greatest(p_priority, -32768), 32767))::bigint << 47) | nextval('duragraph.queue_order')
$$;
comment on function duragraph.queue_ord(integer) is 'Place at the end of the line of a priority (-32768..32767, higher starts sooner): priority in the high bits, arrival in the low 47.';
