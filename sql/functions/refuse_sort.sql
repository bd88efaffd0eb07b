create or replace function duragraph.refuse_sort(p_columns text)
returns void
language plpgsql
volatile
as $$
begin
  raise exception using
    errcode = 'DG422',
    message = 'sort_by is not one of the fields that can be sorted by.',
    hint = 'Use one of ' || p_columns || '.',
    detail = '{"code":"invalid_sort","field":"sort_by"}';
end
$$;
comment on function duragraph.refuse_sort(text) is 'Raises 422: the caller asked to sort by something else than the columns named.';
