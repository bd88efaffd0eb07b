create or replace function duragraph.check_filter(p_filter jsonb)
returns void
language plpgsql
stable
as $$
declare
  v_wanted jsonb;
begin
  if jsonb_typeof(p_filter) <> 'object' then
    raise exception using
      errcode = 'DG422',
      message = 'filter must be an object.',
      hint = 'For example {"color": "red", "score": {"$gte": 3}}.',
      detail = '{"code":"invalid_filter","field":"filter"}';
  end if;
  for v_wanted in select f.value from jsonb_each(p_filter) f where jsonb_typeof(f.value) = 'object' loop
    if exists (select from jsonb_object_keys(v_wanted) k where k like '$%') then
      if exists (select from jsonb_object_keys(v_wanted) k where k not in ('$eq', '$ne', '$gt', '$gte', '$lt', '$lte')) then
        raise exception using
          errcode = 'DG422',
          message = 'filter: not an operator.',
          hint = 'Use $eq, $ne, $gt, $gte, $lt or $lte, and nothing else beside them.',
          detail = '{"code":"invalid_filter","field":"filter"}';
      end if;
    else
      perform duragraph.check_filter(v_wanted);
    end if;
  end loop;
end
$$;
comment on function duragraph.check_filter(jsonb) is 'Raises 422 unless it is a filter: fields with what they must be, or with operators.';
