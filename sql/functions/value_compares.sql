create or replace function duragraph.value_compares(p_value jsonb, p_operator text, p_wanted jsonb)
returns boolean
language sql
immutable
parallel safe
as $$
  select case
    when p_operator = '$eq' then p_value = p_wanted
    when p_operator = '$ne' then p_value <> p_wanted
    when jsonb_typeof(p_value) <> jsonb_typeof(p_wanted) then false
    when jsonb_typeof(p_value) = 'number' then
      case p_operator
        when '$gt' then p_value::numeric > p_wanted::numeric
        when '$gte' then p_value::numeric >= p_wanted::numeric
        when '$lt' then p_value::numeric < p_wanted::numeric
        when '$lte' then p_value::numeric <= p_wanted::numeric
      end
    when jsonb_typeof(p_value) = 'string' then
      case p_operator
        when '$gt' then (p_value #>> '{}') collate "C" > (p_wanted #>> '{}')
        when '$gte' then (p_value #>> '{}') collate "C" >= (p_wanted #>> '{}')
        when '$lt' then (p_value #>> '{}') collate "C" < (p_wanted #>> '{}')
        when '$lte' then (p_value #>> '{}') collate "C" <= (p_wanted #>> '{}')
      end
    else false
  end
$$;
comment on function duragraph.value_compares(jsonb, text, jsonb) is
  'Whether a value stands in that relation ($eq, $ne, $gt, $gte, $lt, $lte) to another. Only numbers with numbers, and texts with texts, have an order.';
