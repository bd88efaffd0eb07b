create or replace function duragraph.merge_messages(p_old json, p_new json, out appends boolean, out value json)
language plpgsql
volatile
as $$
declare
  v_old jsonb[] := array(select e::jsonb from json_array_elements(coalesce(p_old, '[]')) e);
  v_new jsonb[] := array(
    select duragraph.message_of(e) from json_array_elements(
      case
        when json_typeof(p_new) = 'null' then '[]'
        -- [role, text] is one message, other lists hold some.
        when json_typeof(p_new) = 'array'
          and not (json_array_length(p_new) = 2 and coalesce(duragraph.message_type(p_new ->> 0) is not null, false)
            and json_typeof(p_new -> 0) = 'string' and json_typeof(p_new -> 1) = 'string')
          then p_new
        else json_build_array(p_new)
      end
    ) e
  );
  v_message jsonb;
  v_at integer;
begin
  appends := true;
  foreach v_message in array v_new loop
    v_at := (select min(o.n) from unnest(v_old) with ordinality o (message, n) where o.message -> 'id' = v_message -> 'id');
    if v_message ->> 'type' = 'remove' and v_message ->> 'id' = '__remove_all__' then
      v_old := '{}';
      appends := false;
    elsif v_message ->> 'type' = 'remove' then
      if v_at is null then
        raise exception using
          errcode = 'DG422',
          message = 'There is no message ' || coalesce(v_message ->> 'id', 'without an id') || ' to remove.',
          detail = '{"code":"unknown_message","field":"values"}';
      end if;
      v_old := v_old[: v_at - 1] || v_old[v_at + 1 :];
      appends := false;
    elsif v_at is not null then
      v_old[v_at] := v_message;
      appends := false;
    else
      v_old := v_old || v_message;
    end if;
  end loop;
  value := to_json(case when appends then v_old[coalesce(json_array_length(p_old), 0) + 1 :] else v_old end);
end
$$;
comment on function duragraph.merge_messages(json, json) is
  'The messages reducer: a known id replaces its message, {type: remove} removes it, the rest is added. appends: value is only what was added.';
