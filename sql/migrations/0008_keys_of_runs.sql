-- Who deletes a run or a thread deletes the keys that made its runs, and does not look at all others for that.

create index idempotency_keys_run on duragraph.idempotency_keys (tenant_id, run_id);
