create or replace function duragraph.checkpoint_point(
  p_value jsonb, p_field text, out checkpoint_ns text, out checkpoint_id uuid
)
language plpgsql
immutable
as $$
declare
  v_point jsonb := case when jsonb_typeof(p_value -> 'configurable') = 'object' then p_value -> 'configurable' else p_value end;
begin
  checkpoint_ns := coalesce(v_point ->> 'checkpoint_ns', '');
  checkpoint_id := (case when jsonb_typeof(v_point) = 'string' then v_point #>> '{}' else v_point ->> 'checkpoint_id' end)::uuid;
exception
  when invalid_text_representation then
    raise exception using
      errcode = 'DG422',
      message = p_field || ' does not name a checkpoint.',
      hint = 'Use the checkpoint_id (a UUID) or the checkpoint object of a state.',
      detail = json_build_object('code', 'invalid_checkpoint', 'field', p_field)::text;
end
$$;
comment on function duragraph.checkpoint_point(jsonb, text) is
  'The checkpoint that a request names: as an id, as {checkpoint_id, checkpoint_ns}, or as {configurable: {...}}.';
