create or replace function duragraph.with_vectors(p_ops json, p_vectors jsonb)
returns json
language sql
immutable
as $$
  select json_agg(
    case when p_vectors ? (o.n - 1)::text then (o.op::jsonb || jsonb_build_object('vector', p_vectors -> (o.n - 1)::text))::json else o.op end
    order by o.n
  )
  from json_array_elements(p_ops) with ordinality o (op, n)
$$;
comment on function duragraph.with_vectors(json, jsonb) is 'Operations of the store with what their queries mean: {place of the operation, from 0: its vector or null}.';
