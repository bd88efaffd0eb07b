"""The worker protocol: register, claim (long poll), write, beat, drain, leave; and what operators see of workers."""

from __future__ import annotations

import asyncio
import logging
import time
from typing import Any, cast
from uuid import UUID

import orjson
from falcon import HTTP_200
from falcon.asgi import Request, Response

from duragraph.api import workers_v1
from duragraph.api.embedding import embed_queries
from duragraph.api.http import (
    answer,
    answer_json,
    check_text,
    query_bool,
    read_body,
    read_json,
    unwanted_text,
    watch,
)
from duragraph.deps import Deps
from duragraph.errors import DuragraphError, Invalid, NotFound, Unavailable
from duragraph.models import WorkerBeat, WorkerClaim, WorkerReads, WorkerRegister
from duragraph.resource_models import WorkerStore
from duragraph.store import Beat, WorkerRow, Writes

log = logging.getLogger("duragraph.workers")

Route = tuple[str, object, str | None]

POLL_SECONDS = 25.0
_BEAT_AT_POLL = 5.0
_KNOW_FOR = 30.0
_MAX_WRITES = 1000


def routes(deps: Deps) -> list[Route]:
    """The paths of this resource, the published protocol's among them."""
    known = Known(deps)
    workers = Workers(deps, known)
    return [
        ("/workers", workers, None),
        ("/workers/{worker_id}", workers, "one"),
        ("/workers/{worker_id}/claim", workers, "claim"),
        ("/workers/{worker_id}/writes", workers, "writes"),
        ("/workers/{worker_id}/checkpoints", workers, "checkpoints"),
        ("/workers/{worker_id}/store", workers, "store"),
        ("/workers/{worker_id}/heartbeat", workers, "heartbeat"),
        ("/workers/{worker_id}/drain", workers, "drain"),
        ("/workers/graphs/{graph_id}", workers, "graph"),
        *workers_v1.routes(deps, workers),
    ]


class Known:
    """The workers this process knows by name; looked up again after a while, for others may change them."""

    def __init__(self, deps: Deps) -> None:
        self._deps = deps
        self._rows: dict[str, tuple[WorkerRow, float]] = {}
        self._beaten: dict[int, float] = {}

    async def get(self, worker_id: str) -> WorkerRow:
        """The worker; `NotFound` tells it to register again."""
        row, at = self._rows.get(worker_id, (None, 0.0))
        if row is None or at < time.monotonic() - _KNOW_FOR:
            check_text(orjson.dumps(worker_id))
            row = await self._deps.store.find_worker(self._deps.tenant, worker_id)
            if row is None or row.status == "stopped":
                self.forget(worker_id)
                raise unknown_worker(worker_id)
            self._rows[worker_id] = (row, time.monotonic())
        return row

    def forget(self, worker_id: str) -> None:
        """It changed, or it is gone."""
        self._rows.pop(worker_id, None)

    def due(self, worker: WorkerRow) -> bool:
        """Whether a poll should beat too."""
        return self._beaten.get(worker.worker_key, 0.0) < time.monotonic() - _BEAT_AT_POLL

    async def beat(self, worker_id: str, worker: WorkerRow, body: dict[str, Any]) -> Beat:
        """Beat for a worker; `NotFound` when it is not registered any more."""
        self._beaten[worker.worker_key] = time.monotonic()
        beat = await self._deps.batches.beats.add(orjson.dumps({"worker_key": worker.worker_key, **body}))
        if not beat["known"] or beat["status"] == "stopped":
            self.forget(worker_id)
            raise unknown_worker(worker_id)
        if beat["status"] != worker.status:
            self.forget(worker_id)
        return beat


def unknown_worker(worker_id: str) -> NotFound:
    """404: what tells a worker to register again."""
    return NotFound(f"No worker {worker_id!r} is registered.", code="worker_not_found", hint="register again")


class Workers:
    """Worker processes."""

    def __init__(self, deps: Deps, known: Known) -> None:
        self._deps = deps
        self.known = known

    async def on_post(self, req: Request, resp: Response) -> None:
        """Register, or register again."""
        asked, raw = await read_json(req, WorkerRegister)
        registered = await self.register(asked.worker_id, raw)
        answer(
            resp,
            {**registered, "heartbeat_seconds": registered["lease_seconds"] / 3, "poll_seconds": POLL_SECONDS},
        )

    async def register(self, worker_id: str, raw: bytes) -> dict[str, Any]:
        """The answer of register_worker."""
        registered = cast(
            "dict[str, Any]", orjson.loads(await self._deps.store.register_worker(self._deps.tenant, raw))
        )
        self.known.forget(worker_id)
        self._deps.claims.kick()  # what nobody could take may be for this one
        log.info("worker registered", extra={"worker_id": worker_id, "graph_ids": registered["graph_ids"]})
        return registered

    async def on_get(self, req: Request, resp: Response) -> None:
        """All workers."""
        healthy = query_bool(req, "healthy") if req.get_param("healthy") is not None else None
        answer_json(resp, await self._deps.store.list_workers(self._deps.tenant, healthy))

    async def on_get_one(self, req: Request, resp: Response, worker_id: str) -> None:
        """One worker."""
        answer_json(resp, await self._deps.store.get_worker(self._deps.tenant, worker_id))

    async def on_get_graph(self, req: Request, resp: Response, graph_id: str) -> None:
        """A graph as its workers registered it."""
        answer_json(resp, await self._deps.store.get_graph(self._deps.tenant, graph_id))

    async def on_delete_one(self, req: Request, resp: Response, worker_id: str) -> None:
        """The worker leaves; its runs go back to the queue at once."""
        answer_json(resp, await self.leave(worker_id), HTTP_200)

    async def leave(self, worker_id: str) -> bytes:
        """The answer of deregister_worker."""
        left = await self._deps.store.deregister_worker(self._deps.tenant, worker_id)
        self.known.forget(worker_id)
        self._deps.hub.ready()
        log.info("worker left", extra={"worker_id": worker_id})
        return left

    async def on_post_drain(self, req: Request, resp: Response, worker_id: str) -> None:
        """No more runs for this worker; those it has go on."""
        drained = await self._deps.store.drain_worker(self._deps.tenant, worker_id)
        self.known.forget(worker_id)
        log.info("worker draining", extra={"worker_id": worker_id})
        answer_json(resp, drained)

    async def on_post_heartbeat(self, req: Request, resp: Response, worker_id: str) -> None:
        """The worker lives, and says which leases it holds."""
        asked, _ = await read_json(req, WorkerBeat)
        worker = await self.known.get(worker_id)
        if asked.held is None:
            await workers_v1.beat(self._deps, self, worker_id, worker, asked)
            answer(resp, {"acknowledged": True})
            return
        body = {"held": asked.held, "active_runs": asked.active_runs, "details": asked.details}
        beat = await self.known.beat(worker_id, worker, body)
        answer(resp, {"acknowledged": True, "lost": beat["lost"], "status": beat["status"]})

    async def on_post_claim(self, req: Request, resp: Response, worker_id: str) -> None:
        """Runs, as soon as there are any; or which of the held ones are lost."""
        asked, _ = await read_json(req, WorkerClaim)
        self.refuse_when_draining()
        worker = await self.known.get(worker_id)
        lost = await self._beat_at_poll(worker_id, worker, asked)
        held = frozenset(asked.held)
        runs, count = b"[]", 0
        if not lost:
            runs, count = await self.claim(
                req, worker_id, worker, asked.max_runs, min(asked.wait_seconds, POLL_SECONDS), held
            )
            lost = self._deps.claims.lost_among(worker.worker_key, held)
        if count:
            log.info("runs claimed", extra={"worker_id": worker_id, "runs": count})
        answer_json(resp, b'{"runs":%b,"lost":%b}' % (runs, orjson.dumps(lost)))

    async def _beat_at_poll(self, worker_id: str, worker: WorkerRow, asked: WorkerClaim) -> list[int]:
        if not self.known.due(worker):
            return []
        beat = await self.known.beat(worker_id, worker, {"held": asked.held, "active_runs": len(asked.held)})
        return beat["lost"]

    async def claim(
        self, req: Request, worker_id: str, worker: WorkerRow, limit: int, wait: float, held: frozenset[int]
    ) -> tuple[bytes, int]:
        """Hold the request until there are runs, the time is over, or its client has gone."""
        client = watch(req)
        try:
            return await self._deps.claims.poll(worker, limit, wait, held, client)
        except NotFound:
            self.known.forget(worker_id)
            raise
        finally:
            client.cancel()

    def refuse_when_draining(self) -> None:
        """503 for a claim while the process stops: another one has the runs."""
        if self._deps.drain.begun:
            raise Unavailable("this process is stopping", code="draining", hint="ask again", retry_after=1.0)

    async def on_post_writes(self, req: Request, resp: Response, worker_id: str) -> None:
        """Commit what runs did: each Write is one commit, fenced by its token."""
        raw = await read_body(req)
        writes = parse_writes(raw)
        await self.known.get(worker_id)
        answer(resp, {"results": await self._write_all(raw, writes)})

    async def on_post_checkpoints(self, req: Request, resp: Response, worker_id: str) -> None:
        """What a hosted graph saved on the thread of a run that the worker holds."""
        asked, raw = await read_json(req, WorkerReads)
        await self.known.get(worker_id)
        results = await self._deps.store.read_checkpoints(self._deps.tenant, asked.run_id, asked.token, raw)
        answer_json(resp, b'{"results":%b}' % results)

    async def on_post_store(self, req: Request, resp: Response, worker_id: str) -> None:
        """Read and write the key-value store for a run, while its lease is held; all of it or nothing."""
        asked, raw = await read_json(req, WorkerStore)
        await self.known.get(worker_id)
        # A worker that has the vector of a query, or knows that there is none, says so itself.
        queries = {
            place: op["query"]
            for place, op in enumerate(asked.ops)
            if op.get("op") == "search" and op.get("query") and isinstance(op["query"], str) and "vector" not in op
        }
        vectors = dict(zip(queries, await embed_queries(self._deps, list(queries.values())), strict=True))
        results = await self._deps.store.run_store_batch(asked.run_id, asked.token, raw, vectors)
        answer_json(resp, b'{"results":%b}' % results)

    async def _write_all(self, raw: bytes, writes: list[dict[str, Any]]) -> Results:
        if not writes:
            return []
        if b"\\u" in raw and unwanted_text(writes) is not None:
            return await self._write_each(writes)
        try:
            return await self._send(raw_elements(raw, writes), writes)
        except DuragraphError as error:
            if error.status >= 500:
                raise
            if len(writes) == 1:
                return [_refused(writes[0], error)]
            return await self._write_each(writes)

    async def _write_each(self, writes: list[dict[str, Any]]) -> Results:
        return [result for one in await asyncio.gather(*map(self._write_one, writes)) for result in one]

    async def _write_one(self, write: dict[str, Any]) -> Results:
        if (place := unwanted_text(write)) is not None:
            problem = Invalid(f"{place}: a NUL or a lone surrogate cannot be stored", code="invalid_text", field=place)
            return [_refused(write, problem)]
        try:
            return await self._send(orjson.dumps(write), [write])
        except DuragraphError as error:
            if error.status >= 500:
                raise
            return [_refused(write, error)]

    async def _send(self, text: bytes, writes: list[dict[str, Any]]) -> Results:
        holds = {name for write in writes for name in _PARTS if write.get(name) not in (None, [])}
        batches = self._deps.batches
        batch = batches.steps
        if holds == {"events"}:
            batch = batches.events
        elif holds == {"end"}:
            batch = batches.ends
        ends = [(write.get("end") or {}).get("status") for write in writes]
        refused = await batch.add(Writes(text, [write["run_id"] for write in writes], ends))
        return [_result(write, reason) for write, reason in zip(writes, refused, strict=True)]


Results = list[dict[str, Any]]
"""One a Write, in order: {"run_id", "token", "ok", "reason"?, "message"?}."""

_PARTS = ("events", "checkpoints", "steps", "interrupts", "answers", "writes", "end")


def _result(write: dict[str, Any], refused: str | None) -> dict[str, Any]:
    result = {"run_id": write["run_id"], "token": write["token"], "ok": refused is None}
    return {**result, "reason": refused} if refused else result


def _refused(write: dict[str, Any], error: DuragraphError) -> dict[str, Any]:
    log.warning("write refused", extra={"run_id": write["run_id"], "problem": str(error)})
    return {**_result(write, "invalid"), "message": str(error)}


def parse_writes(raw: bytes) -> list[dict[str, Any]]:
    """The Writes of {"writes": [...]}; `Invalid` names the first that is no Write."""
    try:
        body = orjson.loads(raw)
    except ValueError as problem:
        # Lone surrogates are refused by the parser itself: name the place as everywhere else.
        check_text(raw)
        raise Invalid(f"Invalid JSON in request body: {problem}", code="invalid_json", hint="send JSON") from None
    writes = body.get("writes") if isinstance(body, dict) else None
    if not isinstance(writes, list) or len(writes) > _MAX_WRITES:
        raise Invalid(f"writes: must be an array of at most {_MAX_WRITES} Writes", code="invalid_field", field="writes")
    for index, write in enumerate(writes):
        if wrong := _no_write(write):
            raise Invalid(f"writes.{index}.{wrong}", code="invalid_field", field=f"writes.{index}")
    runs = {UUID(write["run_id"]) for write in writes}
    if len(runs) < len(writes):
        raise Invalid("writes: one Write a run and request", code="invalid_field", field="writes")
    return writes


def _no_write(write: object) -> str | None:
    if not isinstance(write, dict):
        return "must be an object"
    if not isinstance(write.get("run_id"), str) or not _is_uuid(write["run_id"]):
        return "run_id: must be a UUID"
    for name in ("token", "write_no"):
        value = write.get(name)
        if (
            not isinstance(value, int)
            or isinstance(value, bool)
            or not 0 < value < 2 ** (63 if name == "token" else 31)
        ):
            return f"{name}: must be a positive integer"
    for name in _PARTS:
        if not isinstance(write.get(name), dict if name == "end" else list) and write.get(name) is not None:
            return f"{name}: must be {'an object' if name == 'end' else 'an array'}"
    return None


def _is_uuid(text: str) -> bool:
    try:
        UUID(text)
    except ValueError:
        return False
    return True


def raw_elements(raw: bytes, writes: list[dict[str, Any]]) -> bytes:
    """The elements of the array as they came; when the envelope holds more than it, rendered anew."""
    head, _, rest = raw.partition(b"[")
    body, _, tail = rest.rpartition(b"]")
    if head.split() in ([b'{"writes":'], [b'{"writes"', b":"], [b"{", b'"writes":'], [b"{", b'"writes"', b":"]) and (
        tail.strip() == b"}"
    ):
        return body
    return orjson.dumps(writes)[1:-1]
