create or replace function duragraph.selected_state(p_state json, p_select text[])
returns json
language plpgsql
immutable
as $$
declare
  v_wrong text := (
    select s from unnest(p_select) s
    where s !~ '^(values(\..+)?|next|tasks|metadata|created_at|checkpoint|parent_checkpoint|interrupts|checkpoint_id|parent_checkpoint_id)$'
    limit 1
  );
begin
  if v_wrong is not null then
    raise exception using
      errcode = 'DG422',
      message = '''' || v_wrong || ''' is not part of a state.',
      hint = 'Select values, values.<key>, next, tasks, metadata, created_at, checkpoint, parent_checkpoint or interrupts.',
      detail = '{"code":"unknown_field","field":"select"}';
  end if;
  return case when cardinality(p_select) > 0 then (
    select json_object_agg(f.name, case
      when f.whole then p_state -> f.name
      else (
        select coalesce(json_object_agg(v.key, v.value), '{}') from json_each(p_state -> 'values') v
        where 'values.' || v.key = any(p_select)
      )
    end order by f.n)
    from (
      select split_part(s.path, '.', 1) as name, bool_or(strpos(s.path, '.') = 0) as whole, min(s.n) as n
      from unnest(p_select) with ordinality s (path, n)
      group by 1
    ) f
  ) else p_state end;
end
$$;
comment on function duragraph.selected_state(json, text[]) is
  'Of a state only what was selected: its fields, and single channels as values.<key>. Nothing selected: all of it.';
