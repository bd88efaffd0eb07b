create or replace function duragraph.item_key(p_op jsonb, p_namespace text[])
returns text
language plpgsql
stable
as $$
declare
  v_key text := p_op ->> 'key';
begin
  if jsonb_typeof(p_op -> 'key') is distinct from 'string' or v_key = '' then
    raise exception using
      errcode = 'DG422',
      message = 'key must be a non-empty text.',
      detail = '{"code":"invalid_key","field":"key"}';
  end if;
  -- An index entry has room for 2704 bytes.
  if octet_length(v_key) + octet_length(array_to_string(p_namespace, '')) + 8 * cardinality(p_namespace) > 2000 then
    raise exception using
      errcode = 'DG422',
      message = 'namespace and key are too long together.',
      hint = 'They may take 2000 bytes, with 8 more for each label.',
      detail = '{"code":"name_too_long","field":"key"}';
  end if;
  return v_key;
end
$$;
comment on function duragraph.item_key(jsonb, text[]) is 'The key in a request, checked; it and the namespace must fit into the index.';
