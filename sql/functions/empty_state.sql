create or replace function duragraph.empty_state()
returns json
language sql
immutable
as $$
  select '{"values": {}, "next": [], "tasks": [], "metadata": {}, "created_at": null, "checkpoint": null, "parent_checkpoint": null, "interrupts": [], "checkpoint_id": null, "parent_checkpoint_id": null}'::json
$$;
comment on function duragraph.empty_state() is 'The state of a thread on which nothing ran yet.';
