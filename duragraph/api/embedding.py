"""Has queries embedded by a run of the workers' embedder; a search waits a little for it. Nothing is computed here."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Sequence

import orjson

from duragraph.api.stream import cancel_runs
from duragraph.deps import Deps

log = logging.getLogger("duragraph.embedding")

PATIENCE = 10.0
"""How long a search waits for what its query means, in seconds."""


async def embed_queries(deps: Deps, texts: Sequence[str]) -> list[bytes | None]:
    """The vector of each text, as JSON; None without an embedder, without pgvector, or when it takes too long."""
    nothing: list[bytes | None] = [None] * len(texts)
    if not texts:
        return nothing
    run_id = await deps.store.embed_texts(deps.tenant, orjson.dumps(texts))
    if run_id is None:
        return nothing
    deps.hub.ready()
    try:
        async with asyncio.timeout(PATIENCE):
            status = await deps.hub.wait_done(run_id)
    except TimeoutError:
        status = "timeout"
        await cancel_runs(deps, {"run_ids": [str(run_id)], "reason": "the search did not wait any longer"})
    vectors = None
    if status == "success":
        _, _, output = await deps.store.run_output(deps.tenant, run_id)
        vectors = orjson.loads(output).get("vectors")
    if not isinstance(vectors, list) or len(vectors) != len(texts):
        log.warning("query not embedded", extra={"run_id": str(run_id), "status": status})
        return nothing
    return [orjson.dumps(vector) for vector in vectors]
