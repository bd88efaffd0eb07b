"""Changes of state that only a graph's code can make: a worker makes them, as a run that the API does not list."""

from __future__ import annotations

import asyncio
from typing import Any
from uuid import UUID

import orjson

from duragraph.api.stream import cancel_runs
from duragraph.deps import Deps
from duragraph.errors import DuragraphError, Malformed, NotFound, Unavailable
from duragraph.hub import GONE

_PATIENCE = 30.0


async def update_by_worker(deps: Deps, thread_id: UUID, supersteps: list[dict[str, Any]], point: Any) -> str:
    """The id of the checkpoint that the updates made: [{"updates": [{"values", "as_node"}]}], from a point or the head.

    `Malformed` when the graph refuses them, `Unavailable` when no worker serves it within 30 s; then nothing changed.
    """
    run = await deps.store.begin_update(deps.tenant, thread_id, orjson.dumps(supersteps), orjson.dumps(point))
    deps.hub.ready()
    try:
        async with asyncio.timeout(_PATIENCE):
            await deps.hub.wait_done(run)
    except TimeoutError:
        if await cancel_runs(deps, {"run_ids": [str(run)], "action": "rollback", "reason": "no worker took it"}):
            raise Unavailable(
                "no worker made the change within 30 s",
                code="no_worker",
                hint="start a worker that serves the thread's graph, or wait until one has time",
                retry_after=5.0,
            ) from None
        # else it was made at the last moment
    status, output = await _outcome(deps, run)
    refused = output.get("refused")
    if status == "success" and isinstance(refused, dict):
        raise Malformed(f"{refused.get('error')}: {refused.get('message')}", code="update_refused", field="values")
    made = output.get("checkpoint_id")
    if status != "success" or not isinstance(made, str):
        why = (output.get("__error__") or {}).get("message") or f"it ended as {status}"
        raise DuragraphError(f"the state was not changed: {why}", status=409, code="update_failed", hint="try again")
    return made


async def _outcome(deps: Deps, run: UUID) -> tuple[str, dict[str, Any]]:
    """Its status, and what came of it: of one that another run interrupted that is the thread's values."""
    try:
        status, _, raw = await deps.store.run_output(deps.tenant, run)
    except NotFound:
        return GONE, {}
    output = orjson.loads(raw)
    return status, output if isinstance(output, dict) else {}
