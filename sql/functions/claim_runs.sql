create or replace function duragraph.claim_runs(p_worker_key integer, p_limit integer, p_marks jsonb default '{}') returns json
language sql volatile as $$
  select json_build_object('runs', c.runs::json, 'marks', c.marks, 'next_due', c.next_due)
  from duragraph.lease_runs(p_worker_key, p_limit, p_marks) c
$$;
comment on function duragraph.claim_runs(integer, integer, jsonb) is
  'Gives a worker up to p_limit runs, each with a new fencing token. p_marks: the marks of the last answer (where live rows begin, a graph; 0: when all was looked at); {} looks from the start. next_due: seconds until the next delayed run.';
