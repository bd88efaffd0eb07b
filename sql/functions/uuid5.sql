create or replace function duragraph.uuid5(p_namespace uuid, p_name text) returns uuid
language plpgsql immutable strict as $$
declare
  v_msg bytea := uuid_send(p_namespace) || convert_to(p_name, 'UTF8');
  v_len integer := length(v_msg);
  v_mask constant bigint := 4294967295;
  h bigint[] := array[1732584193, 4023233417, 2562383102, 271733878, 3285377520];
  w bigint[];
  a bigint; b bigint; c bigint; d bigint; e bigint; f bigint; k bigint; t bigint;
  v_out text := '';
begin
  -- SHA-1 by hand: PostgreSQL has it only in pgcrypto. Runs once for each graph that is registered.
  v_msg := v_msg || '\x80'::bytea || decode(repeat('00', (119 - v_len % 64) % 64), 'hex') || int8send(v_len::bigint * 8);
  for i in 0 .. length(v_msg) / 64 - 1 loop
    for j in 0 .. 15 loop
      w[j] := (get_byte(v_msg, i * 64 + j * 4)::bigint << 24) | (get_byte(v_msg, i * 64 + j * 4 + 1) << 16)
        | (get_byte(v_msg, i * 64 + j * 4 + 2) << 8) | get_byte(v_msg, i * 64 + j * 4 + 3);
    end loop;
    for j in 16 .. 79 loop
      t := w[j - 3] # w[j - 8] # w[j - 14] # w[j - 16];
      w[j] := ((t << 1) | (t >> 31)) & v_mask;
    end loop;
    a := h[1]; b := h[2]; c := h[3]; d := h[4]; e := h[5];
    for j in 0 .. 79 loop
      if j < 20 then f := (b & c) | ((~b & v_mask) & d); k := 1518500249;
      elsif j < 40 then f := b # c # d; k := 1859775393;
      elsif j < 60 then f := (b & c) | (b & d) | (c & d); k := 2400959708;
      else f := b # c # d; k := 3395469782;
      end if;
      t := ((((a << 5) | (a >> 27)) & v_mask) + f + e + k + w[j]) & v_mask;
      e := d; d := c; c := ((b << 30) | (b >> 2)) & v_mask; b := a; a := t;
    end loop;
    h := array[(h[1] + a) & v_mask, (h[2] + b) & v_mask, (h[3] + c) & v_mask, (h[4] + d) & v_mask, (h[5] + e) & v_mask];
  end loop;
  for i in 1 .. 4 loop v_out := v_out || lpad(to_hex(h[i]), 8, '0'); end loop;
  v_out := overlay(v_out placing '5' from 13 for 1);
  v_out := overlay(v_out placing to_hex((('x' || substr(v_out, 17, 1))::bit(4)::integer & 3) | 8) from 17 for 1);
  return v_out::uuid;
end $$;
comment on function duragraph.uuid5(uuid, text) is 'Name-based UUID of RFC 4122 (SHA-1), without an extension.';
