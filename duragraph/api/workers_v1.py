"""The published worker protocol over the same functions: its events become checkpoints, ledger rows and stream frames.

That worker sends no token, checkpoint or question id, cannot resume, repeats nothing it lost, and falls silent while a
synchronous node runs. So the lease is looked up for each event, and what the server must know beyond it is the graph.
"""

from __future__ import annotations

import logging
import secrets
import time
from typing import TYPE_CHECKING, Any
from uuid import NAMESPACE_OID, UUID, uuid5

import orjson
from falcon import HTTP_200
from falcon.asgi import Request, Response

from duragraph.api.http import answer, answer_json, check_text, read_json
from duragraph.deps import Deps
from duragraph.models import LegacyEvent, LegacyPoll, LegacyRegister, WorkerBeat
from duragraph.store import Beat, LegacyLease, WorkerRow, Writes

if TYPE_CHECKING:
    from duragraph.api.workers import Workers

log = logging.getLogger("duragraph.workers")

Route = tuple[str, object, str | None]
Write = dict[str, Any]

HOLD_SECONDS = 20.0
LEASE_SECONDS = 300
"""That worker cannot renew while a synchronous node runs, and such a node may wait minutes for a model."""

_EVENTS_KEPT = 10_000


def routes(deps: Deps, workers: Workers) -> list[Route]:
    """The paths that only the published protocol has."""
    legacy = Legacy(deps, workers)
    return [
        ("/workers/register", legacy, "register"),
        ("/workers/{worker_id}/poll", legacy, "poll"),
        ("/workers/{worker_id}/events", legacy, "events"),
        ("/workers/{worker_id}/deregister", legacy, "deregister"),
    ]


async def beat(deps: Deps, workers: Workers, worker_id: str, worker: WorkerRow, asked: WorkerBeat) -> Beat:
    """A beat without leases: those it reported the start of count as held, until it says twice that it runs nothing."""
    started = await deps.store.legacy_started(worker.worker_key)
    idle = asked.active_runs == 0
    held = [token for token in started if not (idle and _IDLE.seen(worker.worker_key, token))]
    _IDLE.keep(worker.worker_key, started if idle else [])
    details = {"status": asked.status, "total_runs": asked.total_runs or 0, "failed_runs": asked.failed_runs or 0}
    body = {"held": held, "active_runs": asked.active_runs, "details": details}
    answered = await workers.known.beat(worker_id, worker, body)
    if len(held) < len(started):
        log.warning("worker lost its ending, run given out again", extra={"worker_id": worker_id})
        deps.hub.ready()
    if asked.status == "draining" and answered["status"] == "active":
        await deps.store.drain_worker(deps.tenant, worker_id)
        workers.known.forget(worker_id)
    return answered


class _Idle:
    """What an idle worker's last beat left unexplained: leases it started and should still have."""

    def __init__(self) -> None:
        self._tokens: dict[int, frozenset[int]] = {}

    def seen(self, worker_key: int, token: int) -> bool:
        return token in self._tokens.get(worker_key, ())

    def keep(self, worker_key: int, tokens: list[int]) -> None:
        if tokens:
            self._tokens[worker_key] = frozenset(tokens)
        else:
            self._tokens.pop(worker_key, None)


_IDLE = _Idle()


class Legacy:
    """The calls of the published worker."""

    def __init__(self, deps: Deps, workers: Workers) -> None:
        self._deps = deps
        self._workers = workers
        self._began: dict[str, tuple[str, float]] = {}
        """run -> the node that reported its start last, and when: a nicety, lost with the process."""

    async def on_post_register(self, req: Request, resp: Response) -> None:
        """Register, or register again: both calls may come at the same moment."""
        asked, _ = await read_json(req, LegacyRegister)
        definitions = {one["graph_id"]: one for one in asked.graph_definitions if isinstance(one.get("graph_id"), str)}
        graphs = [{"graph_id": name, "definition": one} for name, one in definitions.items()]
        graphs += [{"graph_id": name} for name in asked.capabilities.graphs if name and name not in definitions]
        body = {
            "worker_id": asked.worker_id,
            "capacity": asked.capabilities.max_concurrent_runs,
            "lease_seconds": LEASE_SECONDS,
            "protocol": 1,
            "graphs": graphs,
            "details": {"name": asked.name or asked.worker_id},
        }
        await self._workers.register(asked.worker_id, orjson.dumps(body))
        path = f"/api/v1/workers/{asked.worker_id}"
        urls = {f"{name}_url": f"{path}/{name}" for name in ("heartbeat", "poll", "deregister")}
        answer(resp, {"worker_id": asked.worker_id, "registered": True, **urls, "event_stream_url": f"{path}/events"})

    async def on_post_deregister(self, req: Request, resp: Response, worker_id: str) -> None:
        """The worker leaves."""
        answer_json(resp, await self._workers.leave(worker_id), HTTP_200)

    async def on_post_poll(self, req: Request, resp: Response, worker_id: str) -> None:
        """At most as many tasks as asked for: the worker drops what is beyond."""
        asked, _ = await read_json(req, LegacyPoll)
        self._workers.refuse_when_draining()
        worker = await self._workers.known.get(worker_id)
        until = time.monotonic() + HOLD_SECONDS
        tasks: list[dict[str, Any]] = []
        while not tasks and asked.max_tasks and (left := until - time.monotonic()) > 0:
            raw, count = await self._workers.claim(req, worker_id, worker, asked.max_tasks, left, frozenset())
            if not count:
                break
            tasks = [_task(claim) for claim in orjson.loads(raw) if not await self._resumed(claim)]
        if tasks:
            log.info("runs claimed", extra={"worker_id": worker_id, "runs": len(tasks)})
        answer(resp, {"tasks": tasks})

    async def on_post_events(self, req: Request, resp: Response, worker_id: str) -> None:
        """What a run did. Late and repeated events are taken with 200 and change nothing."""
        asked, raw = await read_json(req, LegacyEvent)
        check_text(raw)
        worker = await self._workers.known.get(worker_id)
        lease = await self._lease(asked.run_id)
        if lease is not None and lease.worker_key == worker.worker_key:
            await self._take(asked, lease)
        answer(resp, {"received": True})

    async def _lease(self, run_id: str) -> LegacyLease | None:
        try:
            return await self._deps.store.legacy_lease(self._deps.tenant, UUID(run_id))
        except ValueError:
            return None

    async def _take(self, asked: LegacyEvent, lease: LegacyLease) -> None:
        data = asked.data
        step = Step(asked.run_id, lease)
        node = data.get("node_id") or asked.node_id
        match asked.event_type:
            case "run_started" if not lease.started:
                step.start()
            case "node_started" if isinstance(node, str):
                self._remember(asked.run_id, node)
            case "node_completed" if isinstance(node, str) and lease.started:
                step.complete_node(node, data.get("output"), self._duration(asked.run_id, node))
            case "run_completed":
                step.finish(data.get("output"))
            case "run_failed" | "node_failed":
                step.fail(str(data.get("error") or "the worker gave no reason"))
            case "run_requires_action" | "human_required" if lease.started:
                step.ask(data, self._began.get(asked.run_id, ("", 0.0))[0])
        if step.write is not None:
            await self._commit(step)

    async def _commit(self, step: Step) -> None:
        assert step.write is not None, "only what says something is committed"
        end = (step.write.get("end") or {}).get("status")
        if end:
            self._began.pop(step.run_id, None)
        await self._deps.batches.steps.add(Writes(orjson.dumps(step.write), [step.run_id], [end]))

    def _remember(self, run_id: str, node: str) -> None:
        while len(self._began) >= _EVENTS_KEPT:
            del self._began[next(iter(self._began))]
        self._began[run_id] = (node, time.monotonic())

    def _duration(self, run_id: str, node: str) -> float | None:
        began, at = self._began.get(run_id, ("", 0.0))
        return (time.monotonic() - at) * 1000 if began == node else None

    async def _resumed(self, claim: dict[str, Any]) -> bool:
        """Whether the claimed run only answers a question: this worker would start over, so it is settled here."""
        command = claim["kwargs"].get("command") or {}
        if command.get("resume") is None:
            return False
        lease = await self._lease(claim["run_id"])
        if lease is not None:
            step = Step(claim["run_id"], lease)
            step.resume(command["resume"])
            await self._commit(step)
        return True


def _task(claim: dict[str, Any]) -> dict[str, Any]:
    """The claim in the published form. Its input is the thread's state with the run's input over it."""
    kwargs = claim["kwargs"]
    state = {} if claim["resumed"] else dict((claim["checkpoint"] or {}).get("values") or {})
    return {
        "task_id": f"task-{claim['token']}",
        "run_id": claim["run_id"],
        "thread_id": claim["thread_id"],
        "assistant_id": claim["assistant_id"],
        "graph_id": claim["graph_id"],
        "input": {**state, **_update(kwargs.get("input"))},
        "config": kwargs.get("config") or {},
        "created_at": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
    }


def _update(value: object) -> dict[str, Any]:
    return value if isinstance(value, dict) else {}


class Step:
    """One event of a run as a Write: `write` is None when there is nothing to commit."""

    def __init__(self, run_id: str, lease: LegacyLease) -> None:
        self.run_id = run_id
        self.write: Write | None = None
        self._lease = lease
        self._head = lease.checkpoint or {}
        self._values: dict[str, Any] = dict(self._head.get("values") or {})

    def start(self) -> None:
        """The input over the thread's state; the first node is next."""
        step = self._head.get("step", -2) + 1
        entry = self._lease.definition.get("entry_point")
        first = self._checkpoint(self._head.get("checkpoint_id"), step, "input", {}, ["__start__"])
        second = self._checkpoint(
            first["checkpoint_id"], step + 1, "loop", _update(self._lease.kwargs.get("input")), [entry] if entry else []
        )
        self._say(checkpoints=[first, second], events=self._shown(second))

    def complete_node(self, node: str, output: object, duration_ms: float | None) -> None:
        """What the node gave over the state; what is next follows from the graph."""
        following = next_node(self._lease.definition, node, output)
        made = self._next(_update(output), [following] if following else [])
        ledger = {
            "checkpoint_id": self._head["checkpoint_id"],
            "task_id": task_id(self._head["checkpoint_id"], node),
            "kind": "node",
            "name": node,
            "result": output,
            "duration_ms": duration_ms,
        }
        shown = {node: output if isinstance(output, dict) else None}
        self._say(checkpoints=[made], steps=[ledger], events=[*self._update_shown(shown), *self._shown(made)])

    def finish(self, output: object) -> None:
        """The end, with whatever the final state has that no node reported."""
        changed = self._changed(_update(output))
        end: dict[str, Any] = {"status": "success"}
        if self._lease.temporary:
            end["output"] = {**self._values, **changed}
        made = [self._next(changed, [])] if changed or self._head.get("next") or not self._lease.started else []
        self._say(checkpoints=made, events=self._shown(made[0]) if changed else [], end=end)

    def fail(self, message: str) -> None:
        """The end of a run whose graph raised; the worker tells no type."""
        error = {"error": "Error", "message": message}
        self._say(events=[{"event": "error", "data": error}], end={"status": "error", "error": error})

    def ask(self, data: dict[str, Any], node: str) -> None:
        """The run stops at a human node: its question stands on a checkpoint from which that node is next."""
        node = node or next(iter(self._head.get("next") or []), "human")
        changed = self._changed(_update(data.get("state")))
        made = [self._next(changed, [node])] if changed or self._head.get("next") != [node] else []
        head = made[0]["checkpoint_id"] if made else self._head["checkpoint_id"]
        value = {name: data[name] for name in ("action_type", "prompt") if name in data}
        asked = {
            "checkpoint_id": head,
            "task_id": task_id(head, node),
            "interrupt_id": UUID(task_id(head, f"{node}?")).hex,
            "node": node,
            "value": value,
        }
        told = {"__interrupt__": [{"value": value, "id": asked["interrupt_id"], "response_schema": None}]}
        end: dict[str, Any] = {"status": "success"}
        if self._lease.temporary:
            end["output"] = {**self._values, **changed, **told}
        values = [{"event": "values", "checkpoint_id": head, "data": told}] if self._asked_for("values") else []
        self._say(checkpoints=made, interrupts=[asked], events=[*self._update_shown(told), *values], end=end)

    def resume(self, answer: object) -> None:
        """The answer to a question. This worker cannot go on after one: only a last node can be answered."""
        waiting = [
            (task, one)
            for task in self._head.get("tasks") or []
            for one in task.get("interrupts") or []
            if not one["answered"]
        ]
        if not waiting:
            self._say(end={"status": "success", **({"output": self._values} if self._lease.temporary else {})})
            return
        task, one = waiting[0]
        if _has_edge(self._lease.definition, task["name"]):
            self.fail(
                f"the worker of graph {self._lease.graph_id} cannot go on after node {task['name']}: it speaks the "
                "published protocol, which has no resume; serve the graph with duragraph-worker, or end it at that node"
            )
            return
        given = _only(answer, one["id"])
        update = given if isinstance(given, dict) else {task["name"]: given}
        made = self._next(self._changed(update), [])
        answered = {
            "checkpoint_id": self._head["checkpoint_id"],
            "task_id": task["id"],
            "ordinal": one["ordinal"],
            "answer": given,
        }
        events = [*self._update_shown({task["name"]: update}), *self._shown(made)]
        self._say(checkpoints=[made], answers=[answered], events=events, end={"status": "success"})

    def _say(self, *, checkpoints: list[dict[str, Any]] | None = None, **parts: Any) -> None:
        head = checkpoints[-1]["checkpoint_id"] if checkpoints else self._head.get("checkpoint_id")
        if not self._lease.started and not checkpoints:
            # Nothing was committed yet: the run stands on no checkpoint of its own.
            head = None
        self.write = {
            "run_id": self.run_id,
            "token": self._lease.token,
            "write_no": self._lease.write_no + 1,
            "checkpoint_id": head,
            "checkpoints": checkpoints or [],
            **parts,
        }

    def _next(self, update: dict[str, Any], following: list[str]) -> dict[str, Any]:
        return self._checkpoint(
            self._head.get("checkpoint_id"), self._head.get("step", -2) + 1, "loop", self._changed(update), following
        )

    def _changed(self, update: dict[str, Any]) -> dict[str, Any]:
        """Many nodes give the whole state back: only what differs is stored."""
        return {name: value for name, value in update.items() if self._values.get(name, self) != value}

    def _checkpoint(
        self, parent: str | None, step: int, source: str, update: dict[str, Any], following: list[str]
    ) -> dict[str, Any]:
        made = new_id()
        return {
            "checkpoint_id": made,
            "parent_checkpoint_id": parent,
            "step": step,
            "source": source,
            "channels": {name: {"set": value} for name, value in update.items()},
            "next": following,
            "tasks": [
                {"id": task_id(made, node), "name": node, "path": ["__pull__", node]}
                for node in following
                if node != "__start__"
            ],
            "metadata": {},
        }

    def _asked_for(self, mode: str) -> bool:
        return mode in (self._lease.kwargs.get("stream_mode") or ["values"])

    def _shown(self, checkpoint: dict[str, Any]) -> list[dict[str, Any]]:
        shown = {"event": "values", "checkpoint_id": checkpoint["checkpoint_id"]}
        return [shown] if self._asked_for("values") else []

    def _update_shown(self, data: dict[str, Any]) -> list[dict[str, Any]]:
        return [{"event": "updates", "data": data}] if self._asked_for("updates") else []


def _only(answer: object, interrupt_id: str) -> object:
    """The answer itself, or the one meant for this question of {interrupt id: answer}."""
    return answer[interrupt_id] if isinstance(answer, dict) and list(answer) == [interrupt_id] else answer


def _edges(definition: dict[str, Any], node: str) -> list[dict[str, Any]]:
    return [one for one in definition.get("edges") or [] if isinstance(one, dict) and one.get("source") == node]


def _has_edge(definition: dict[str, Any], node: str) -> bool:
    return any(one.get("target") != "__end__" for one in _edges(definition, node))


def next_node(definition: dict[str, Any], node: str, output: object) -> str | None:
    """What the published worker runs after a node: by its first edge, which names a node or maps a router's result."""
    for edge in _edges(definition, node)[:1]:
        target = edge.get("target")
        if isinstance(target, dict):
            target = target.get(output) if isinstance(output, str) else None
        if isinstance(target, str) and target != "__end__":
            return target
    return None


def task_id(checkpoint_id: str, node: str) -> str:
    """The same for the same node at the same checkpoint."""
    return str(uuid5(NAMESPACE_OID, f"{checkpoint_id}/{node}"))


def new_id() -> str:
    """A UUIDv7 for a checkpoint."""
    ms = time.time_ns() // 1_000_000
    return str(UUID(int=ms << 80 | 7 << 76 | secrets.randbits(12) << 64 | 2 << 62 | secrets.randbits(62)))
