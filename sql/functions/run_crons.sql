create or replace function duragraph.run_crons(p_tenant integer, p_crons duragraph.crons[])
returns jsonb
language plpgsql
as $$
declare
  v_half integer := cardinality(p_crons) / 2;
  v_made json;
  v_code text;
  v_text text;
  v_detail text;
begin
  begin
    select duragraph.create_runs(p_tenant, json_agg(json_build_object(
      'thread_id', (p_crons[n]).thread_id, 'brief', true, 'body', duragraph.cron_run(p_crons[n])
    ) order by n)) into v_made
    from generate_subscripts(p_crons, 1) n;
    return (
      select jsonb_agg(jsonb_build_object('cron_id', (p_crons[r.n]).cron_id, 'run_id', r.run ->> 'run_id'))
      from json_array_elements(v_made) with ordinality r (run, n)
    );
  exception
    when others then
      get stacked diagnostics v_code = returned_sqlstate, v_text = message_text, v_detail = pg_exception_detail;
      -- What a repetition would heal (deadlock, shutdown, lost connection) is not the cron's fault.
      if v_code !~ '^(DG4|22|23)' then
        raise;
      end if;
  end;
  if v_half > 0 then
    return duragraph.run_crons(p_tenant, p_crons[:v_half]) || duragraph.run_crons(p_tenant, p_crons[v_half + 1:]);
  end if;
  return jsonb_build_array(jsonb_build_object('cron_id', (p_crons[1]).cron_id, 'error', jsonb_build_object(
    'error', coalesce(substring(v_detail from '"code":\s*"(\w+)"'), v_code), 'message', v_text,
    'at', duragraph.iso(duragraph.current_time())
  )));
end
$$;
comment on function duragraph.run_crons(integer, duragraph.crons[]) is
  'Makes one run a cron of one tenant: in one create_runs(), or by halves when it refuses, until those it refuses stand alone.
[{cron_id, run_id} or {cron_id, error}].';
