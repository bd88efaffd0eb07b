-- The table of contents of the engine: installs it, or brings it up to date. Running it again is harmless.
--
--     psql "$DATABASE_URL" -f sql/install.sql
--
-- One transaction: it happens as a whole or not at all. Migrations run once each; functions, views and grants are
-- restated every time. The list is written by `make sql-toc` from the files in this folder.
\set ON_ERROR_STOP on
\set ON_ERROR_ROLLBACK off
begin transaction isolation level read committed;
set local client_min_messages = warning;
-- A body may name what a later file makes.
set local check_function_bodies = off;

\ir bootstrap.sql

do $$
begin
  if exists (select from duragraph.migrations where version > 8) then
    raise exception using
      errcode = 'DG503',
      message = 'the database is newer than these files',
      hint = 'take the files of the newer version';
  end if;
end
$$;

select not exists (select from duragraph.migrations where version = 1) as pending \gset
\if :pending
\ir migrations/0001_core.sql
insert into duragraph.migrations (version, name, checksum)
values (1, 'core', 'dce8329e53ffdf9b1f55d1344d6a1b1337ea8e68d7f8ce50a39be2f8d660258e');
\endif

select not exists (select from duragraph.migrations where version = 2) as pending \gset
\if :pending
\ir migrations/0002_hosted.sql
insert into duragraph.migrations (version, name, checksum)
values (2, 'hosted', '2e4c1856e665705c6398f9950113ceaf821a251512cb077bd78e734e5f990a78');
\endif

select not exists (select from duragraph.migrations where version = 3) as pending \gset
\if :pending
\ir migrations/0003_store.sql
insert into duragraph.migrations (version, name, checksum)
values (3, 'store', '42003a90801b18eea2097b0590cfca002c846278dd002e1b4fefb03c17362f3c');
\endif

select not exists (select from duragraph.migrations where version = 4) as pending \gset
\if :pending
\ir migrations/0004_crons.sql
insert into duragraph.migrations (version, name, checksum)
values (4, 'crons', '849a86daf25cfc97dc0eb9272eb0ecfa227859aa5bcf58ff0e5eb9487d54e819');
\endif

select not exists (select from duragraph.migrations where version = 5) as pending \gset
\if :pending
\ir migrations/0005_webhooks.sql
insert into duragraph.migrations (version, name, checksum)
values (5, 'webhooks', 'aa5dd92c44ffae8c4f1b6f39066c7d5b19a6bbf22b24ee70237c8ef3ba3a92a6');
\endif

select not exists (select from duragraph.migrations where version = 6) as pending \gset
\if :pending
\ir migrations/0006_threads.sql
insert into duragraph.migrations (version, name, checksum)
values (6, 'threads', 'c128d39627bbe7361c2bc57c5bfe76cb20d79631e839848e2c598afd98f3841a');
\endif

select not exists (select from duragraph.migrations where version = 7) as pending \gset
\if :pending
\ir migrations/0007_vectors.sql
insert into duragraph.migrations (version, name, checksum)
values (7, 'vectors', '31e03db103e25d2aea6f1fb5ba63b21b2c6cedca4f217d99760a6b03b0369fb4');
\endif

select not exists (select from duragraph.migrations where version = 8) as pending \gset
\if :pending
\ir migrations/0008_keys_of_runs.sql
insert into duragraph.migrations (version, name, checksum)
values (8, 'keys_of_runs', '81218e5b1fcab208ff1d6d615737558c5746000cef897de55eba8c4eb4101385');
\endif

\ir functions/append_events.sql
\ir functions/append_value.sql
\ir functions/apply_update.sql
\ir functions/assistant_graph.sql
\ir functions/assistant_graph_row.sql
\ir functions/assistant_json.sql
\ir functions/assistant_matches.sql
\ir functions/assistant_schemas.sql
\ir functions/assistant_settings.sql
\ir functions/assistant_subgraphs.sql
\ir functions/begin_update.sql
\ir functions/cancel_run.sql
\ir functions/cancel_runs.sql
\ir functions/channel_saved.sql
\ir functions/channel_value.sql
\ir functions/check_filter.sql
\ir functions/check_new_runs.sql
\ir functions/check_strict_resumes.sql
\ir functions/checkpoint_document.sql
\ir functions/checkpoint_journal.sql
\ir functions/checkpoint_metadata.sql
\ir functions/checkpoint_point.sql
\ir functions/checkpoint_tasks.sql
\ir functions/checkpoint_values.sql
\ir functions/claim_runs.sql
\ir functions/claim_webhooks.sql
\ir functions/commit_steps.sql
\ir functions/complete_runs.sql
\ir functions/copy_thread.sql
\ir functions/count_assistants.sql
\ir functions/count_crons.sql
\ir functions/count_threads.sql
\ir functions/create_assistant.sql
\ir functions/create_cron.sql
\ir functions/create_embed_run.sql
\ir functions/create_keyed_runs.sql
\ir functions/create_runs.sql
\ir functions/create_thread.sql
\ir functions/cron_json.sql
\ir functions/cron_matches.sql
\ir functions/cron_payload.sql
\ir functions/cron_run.sql
\ir functions/cron_timing.sql
\ir functions/current_time.sql
\ir functions/delete_assistant.sql
\ir functions/delete_cron.sql
\ir functions/delete_item.sql
\ir functions/delete_run.sql
\ir functions/delete_thread.sql
\ir functions/deregister_worker.sql
\ir functions/drain_worker.sql
\ir functions/drawn_graph.sql
\ir functions/due_crons.sql
\ir functions/embed_texts.sql
\ir functions/embedder.sql
\ir functions/empty_state.sql
\ir functions/end_runs.sql
\ir functions/end_stateless_run.sql
\ir functions/end_thread_runs.sql
\ir functions/end_with_error.sql
\ir functions/enter_threads.sql
\ir functions/erase_runs.sql
\ir functions/expiry_of.sql
\ir functions/find_assistant.sql
\ir functions/find_cron.sql
\ir functions/find_graph.sql
\ir functions/find_task.sql
\ir functions/find_thread.sql
\ir functions/fire_crons.sql
\ir functions/forget_checkpoints.sql
\ir functions/forget_vectors.sql
\ir functions/found_threads.sql
\ir functions/get_assistant.sql
\ir functions/get_cron.sql
\ir functions/get_graph.sql
\ir functions/get_history.sql
\ir functions/get_item.sql
\ir functions/get_run.sql
\ir functions/get_state.sql
\ir functions/get_thread.sql
\ir functions/get_worker.sql
\ir functions/graph_edges.sql
\ir functions/heartbeat.sql
\ir functions/hold_thread.sql
\ir functions/index_item.sql
\ir functions/index_puts.sql
\ir functions/iso.sql
\ir functions/item_index.sql
\ir functions/item_json.sql
\ir functions/item_key.sql
\ir functions/item_matches.sql
\ir functions/item_to_index.sql
\ir functions/item_ttl.sql
\ir functions/json_path.sql
\ir functions/keep_assistant_version.sql
\ir functions/keep_latest.sql
\ir functions/lease_runs.sql
\ir functions/list_assistant_versions.sql
\ir functions/list_namespaces.sql
\ir functions/list_runs.sql
\ir functions/list_tools.sql
\ir functions/list_workers.sql
\ir functions/maintain_partitions.sql
\ir functions/make_id.sql
\ir functions/merge_messages.sql
\ir functions/merged_json.sql
\ir functions/message_of.sql
\ir functions/message_type.sql
\ir functions/metrics.sql
\ir functions/namespace_after.sql
\ir functions/namespace_matches.sql
\ir functions/namespace_of.sql
\ir functions/new_config.sql
\ir functions/new_kwargs.sql
\ir functions/new_tasks.sql
\ir functions/notify_ended.sql
\ir functions/notify_runs.sql
\ir functions/overlay_json.sql
\ir functions/owe_webhooks.sql
\ir functions/page_number.sql
\ir functions/patch_state.sql
\ir functions/promote_due.sql
\ir functions/promote_threads.sql
\ir functions/prune_thread.sql
\ir functions/prune_threads.sql
\ir functions/put_item.sql
\ir functions/put_state.sql
\ir functions/queue_ord.sql
\ir functions/queue_runs.sql
\ir functions/read_checkpoints.sql
\ir functions/read_events.sql
\ir functions/reduce_value.sql
\ir functions/refresh_items.sql
\ir functions/refuse_assistant.sql
\ir functions/refuse_sort.sql
\ir functions/register_graph.sql
\ir functions/register_worker.sql
\ir functions/reindex_items.sql
\ir functions/release_expired_leases.sql
\ir functions/remove_checkpoints.sql
\ir functions/replay_supersteps.sql
\ir functions/requeue_run.sql
\ir functions/requeue_runs.sql
\ir functions/resend_webhook.sql
\ir functions/resolve_runs.sql
\ir functions/rest_thread.sql
\ir functions/retry_run.sql
\ir functions/run_crons.sql
\ir functions/run_json.sql
\ir functions/run_kwargs.sql
\ir functions/run_output.sql
\ir functions/run_status.sql
\ir functions/run_store_batch.sql
\ir functions/runs_of_keys.sql
\ir functions/runs_to_cancel.sql
\ir functions/saved_checkpoint.sql
\ir functions/search_assistants.sql
\ir functions/search_crons.sql
\ir functions/search_items.sql
\ir functions/search_threads.sql
\ir functions/selected_state.sql
\ir functions/set_latest_assistant.sql
\ir functions/settle_runs.sql
\ir functions/settle_webhook.sql
\ir functions/shard_of.sql
\ir functions/state_json.sql
\ir functions/state_tasks.sql
\ir functions/static_next.sql
\ir functions/store_batch.sql
\ir functions/submit_run.sql
\ir functions/sweep_items.sql
\ir functions/sweep_retention.sql
\ir functions/sweep_threads.sql
\ir functions/sweep_webhooks.sql
\ir functions/take_thread.sql
\ir functions/tasks_after_update.sql
\ir functions/text_array.sql
\ir functions/thread_definition.sql
\ir functions/thread_entries.sql
\ir functions/thread_head.sql
\ir functions/thread_interrupts.sql
\ir functions/thread_json.sql
\ir functions/thread_matches.sql
\ir functions/thread_stamps.sql
\ir functions/thread_start.sql
\ir functions/thread_status.sql
\ir functions/thread_storage.sql
\ir functions/tick_before.sql
\ir functions/unit_vector.sql
\ir functions/update_assistant.sql
\ir functions/update_cron.sql
\ir functions/update_thread.sql
\ir functions/update_writes.sql
\ir functions/uuid5.sql
\ir functions/uuid_at.sql
\ir functions/value_compares.sql
\ir functions/value_matches.sql
\ir functions/vector_schema.sql
\ir functions/webhook_body.sql
\ir functions/webhook_delays.sql
\ir functions/why_not_claimed.sql
\ir functions/why_not_running.sql
\ir functions/with_vectors.sql
\ir functions/worker_json.sql
\ir functions/write_channel.sql
\ir functions/write_results.sql

\ir views/active_runs.sql
\ir views/cron_overview.sql
\ir views/run_ledger.sql
\ir views/run_overview.sql
\ir views/thread_line.sql
\ir views/webhook_log.sql
\ir views/worker_health.sql
\ir views/queue_depth.sql
\ir views/stuck_runs.sql

\ir grants.sql

commit;
