create or replace function duragraph.unit_vector(p_given jsonb)
returns real[]
language plpgsql
stable
as $$
declare
  v_numbers double precision[];
  v_length double precision;
begin
  if jsonb_typeof(p_given) is distinct from 'array' or jsonb_array_length(p_given) not between 1 and 16000
      or exists (select from jsonb_array_elements(p_given) n where jsonb_typeof(n) <> 'number') then
    raise exception using
      errcode = 'DG422',
      message = 'vector must be a list of 1 to 16000 numbers.',
      detail = '{"code":"invalid_vector","field":"vector"}';
  end if;
  v_numbers := array(select n.value::double precision from jsonb_array_elements_text(p_given) with ordinality n order by n.ordinality);
  -- By the greatest of them first: squares of large numbers, and of small ones, have no place in a double.
  v_length := (select max(abs(n)) from unnest(v_numbers) n);
  if v_length < 1e-200 then
    raise exception using
      errcode = 'DG422',
      message = 'vector must not be all zeros.',
      detail = '{"code":"invalid_vector","field":"vector"}';
  end if;
  v_numbers := array(select case when abs(n.n) < v_length * 1e-30 then 0 else n.n / v_length end from unnest(v_numbers) with ordinality n(n, at) order by n.at);
  v_length := (select sqrt(sum(n * n)) from unnest(v_numbers) n);
  return array(select n.n / v_length from unnest(v_numbers) with ordinality n(n, at) order by n.at);
end
$$;
comment on function duragraph.unit_vector(jsonb) is 'A vector of a request, checked, of length 1.';
