create or replace function duragraph.iso(p_at timestamptz) returns text
language sql stable parallel safe as $$
  select to_char(p_at at time zone 'utc', 'YYYY-MM-DD"T"HH24:MI:SS.US') || '+00:00'
$$;
comment on function duragraph.iso(timestamptz) is 'A time as the API writes it: ISO 8601, microseconds, +00:00.';
