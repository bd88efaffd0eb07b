"""What the fuzz tests act on: a server with a worker at work, and real things for the generated cases to name."""

from __future__ import annotations

import asyncio
import threading
import time
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import httpx
import requests
from schemathesis import Case, Response

from duragraph_worker import Worker
from tests.api.acting import Acting
from tests.api.conftest import Live
from tests.sql.scene import COUNTER
from tests.waiting import wait_for
from tests.worker import scenarios
from tests.worker import toy_graphs as toys

Json = dict[str, Any]

PATIENCE = 0.25
"""How long an answer is read: a stream without end is cut then, and what came is judged."""

# What is said in JSON-RPC and in protocol v2: the description only knows that `params` is an object.
METHODS = (
    "tools/call", "message/send", "tasks/get", "SendMessage", "tools/list", "tasks/cancel", "message/stream",
    "initialize", "run.start", "input.respond", "run.cancel", "agent.getTree", "run.attach",
    "GetTask", "ping", "tasks/resubscribe", "SubscribeToTask", "CancelTask", "SendStreamingMessage",
)  # fmt: skip
EVENTS = (
    "run_started", "node_started", "node_completed", "run_completed", "run_failed", "node_failed",
    "run_requires_action", "human_required",
)  # fmt: skip


@contextmanager
def worker_at_work(live: Live) -> Iterator[None]:
    """Serve toy graphs until the block is left."""
    worker = Worker(live.url, graphs=[toys.Counter, toys.Echo, scenarios.Pay], name="busy", max_concurrent_runs=50)
    thread = threading.Thread(target=lambda: asyncio.run(worker.arun()), name="worker")
    thread.start()
    try:
        wait_for(lambda: httpx.get(f"{live.url}/workers/busy").status_code == 200, what="the worker's registration")
        yield
    finally:
        worker.stop()
        worker.stop()
        thread.join(15)
        assert not thread.is_alive(), "the worker did not stop"


class Things:
    """Threads, runs, assistants, crons and a worker that are there; names of parameters and fields -> their values.

    The nth thread is that of the nth run: one that has ended, one that asks, one that a worker holds, one that waits.
    """

    def __init__(self, http: httpx.Client) -> None:
        self._acting = acting = Acting(http)
        held = self._held()
        ended, asking = self._ran("counter", {"target": 2}), self._ran("approval", {"amount": 5})
        waiting = acting.thread(metadata={"a": 1})
        later = acting.post(f"/threads/{waiting}/runs", {"assistant_id": acting.graph_id, "after_seconds": 3600})
        threads = [ended["thread_id"], asking["thread_id"], held["thread_id"], waiting]
        runs = [ended["run_id"], asking["run_id"], held["run_id"], later["run_id"]]
        head = acting.get(f"/threads/{ended['thread_id']}/state")["checkpoint"]["checkpoint_id"]
        assistants = [acting.post("/assistants", {"graph_id": "counter"})["assistant_id"] for _ in range(2)]
        graphs = ["counter", acting.graph_id, "echo"]
        cron = {"assistant_id": "counter", "schedule": "0 0 1 1 *"}
        crons = [
            acting.post(path, cron)["cron_id"] for path in ("/runs/crons", f"/threads/{ended['thread_id']}/runs/crons")
        ]
        item = {"namespace": ["fuzz", "a"], "key": "k", "value": {"n": 1}}
        acting.call("PUT", "/store/items", item, 204)
        self.known: dict[str, list[Any]] = {
            "thread_id": threads,
            "thread_ids": [threads[:1], threads],
            "ids": [threads],
            "run_id": runs,
            "run_ids": [runs[:1], runs],
            "assistant_id": [*assistants, *graphs],
            "cron_id": crons,
            "worker_id": [self.worker_id],
            "graph_id": graphs,
            "checkpoint_id": [head],
            "before": [head],
            "token": [held["token"]],
            "held": [[held["token"]], []],
            "key": [item["key"]],
            "namespace": [item["namespace"]],
            "namespace_prefix": [["fuzz"], []],
            "schedule": ["*/5 * * * *", "0 0 29 2 *"],
            "timezone": ["Europe/Berlin"],
            "as_node": ["prepare", "increment", "review"],
            "method": list(METHODS),
            "event_type": list(EVENTS),
            "channels": [["values"], ["lifecycle", "custom:a"]],
            "extract": [{"a": "values.log[-1]", "b": "metadata"}],
            "Last-Event-ID": ["0", "-", "1-1", f"{int(time.time() * 1000)}-00000001"],
        }

    def _ran(self, graph: str, given: Json) -> Json:
        """A run of the graph that the worker has played to its end, or to its question."""
        thread = self._acting.thread()
        run: Json = self._acting.post(f"/threads/{thread}/runs", {"assistant_id": graph, "input": given})
        self._acting.get(f"/threads/{thread}/runs/{run['run_id']}/join")
        return run

    def _held(self) -> Json:
        """The claim of a run that a worker of the published protocol's age will never end."""
        acting = self._acting
        definition = {**COUNTER, "graph_id": acting.graph_id}
        self.worker_id = f"held-{acting.graph_id}"
        acting.post("/workers", {"worker_id": self.worker_id, "graphs": [definition], "lease_seconds": 3600})
        acting.run(acting.thread())
        return acting.claim(self.worker_id)

    def put_into(self, case: Case) -> None:
        """Let three cases of four name what is there; the same case is always changed in the same way."""
        luck = zlib.crc32(repr((case.path_parameters, case.query, case.body)).encode())
        if luck % 4 == 0:
            return
        for parameters in (case.path_parameters, case.query, case.headers):
            for name in list(parameters):
                if parameters is case.path_parameters or luck % 3:
                    parameters[name] = self._value(name, luck // 12, parameters[name])
        if luck % 5:
            case.body = self._filled(case.body, luck // 12)
        if isinstance(case.body, dict) and "params" in case.body:
            case.body["params"] = self._params(case.body, luck // 60)
        if case.path.endswith("/writes") and isinstance(case.body, dict):
            case.body["writes"] = [self._write(one, luck // 12) for one in _list(case.body.get("writes"))][:1]
        if case.path.endswith("/store") and isinstance(case.body, dict):
            held = {"run_id": self.known["run_id"][2], "token": self.known["token"][0]}
            case.body = {**held, "ops": [_store_op(one, luck // 12) for one in _list(case.body.get("ops"))]}

    def _value(self, name: str, luck: int, given: object) -> Any:
        known = self.known.get(name)
        return known[luck % len(known)] if known else given

    def _filled(self, body: Any, luck: int) -> Any:
        if isinstance(body, list):
            return [self._filled(one, luck + n) for n, one in enumerate(body)]
        if not isinstance(body, dict):
            return body
        return {name: self._value(name, luck, self._filled(one, luck)) for name, one in body.items()}

    def _params(self, body: Json, luck: int) -> Json:
        """Parameters of the method with what was generated in the places where anything goes."""
        given = body["params"] if isinstance(body["params"], dict) else {}
        message: Json = {
            "role": "user",
            "parts": [{"text": "hello"}, {"data": given}][luck % 2 :],
            "messageId": "m",
            **({"contextId": self.known["thread_id"][luck % 4]} if luck % 3 else {}),
            **({"taskId": self.known["run_id"][luck % 4]} if luck % 7 < 3 else {}),
            **(given if luck % 11 == 0 else {}),
        }
        return {
            "name": self.known["graph_id"][luck % 3],
            "arguments": given,
            "message": message,
            "id": self.known["run_id"][luck % 4],
            "run_id": self.known["run_id"][luck % 4],
            "assistant_id": self.known["assistant_id"][luck % 5],
            "interrupt_id": "none",
            "input": given,
            "response": given,
            **(given if luck % 2 else {}),
        }

    def _write(self, given: object, luck: int) -> Json:
        """A Write of the held run."""
        more = given if isinstance(given, dict) else {}
        at = {"checkpoint_id": "00000000-0000-7000-8000-000000000001", "step": 0, "source": "loop", "channels": {}}
        parts: list[Json] = [
            {"events": [{"event": "custom", "data": more}]},
            {"checkpoints": [{**at, **more}]},
            {"checkpoints": [{**at, "channels": {"count": {"set": more}, "log": {"append": [more]}}}]},
            {"steps": [{**at, "task_id": at["checkpoint_id"], "kind": "node", "name": "a", "result": more}]},
            {"interrupts": [{**at, **more}], "answers": [more]},
            {"end": more},
            more,
        ]
        held = {"run_id": self.known["run_id"][2], "token": self.known["token"][0], "write_no": 1 + luck % 3}
        return {**held, **parts[luck % len(parts)]}


def _store_op(given: object, luck: int) -> Json:
    """What a run asks of the store, with what was generated in it."""
    more = given if isinstance(given, dict) else {}
    ops: list[Json] = [
        {"op": "put", "namespace": ["fuzz", "b"], "key": "k", "value": more},
        {"op": "get", "namespace": ["fuzz", "a"], "key": "k"},
        {"op": "search", "namespace_prefix": ["fuzz"], "filter": more},
        {"op": "search", "namespace_prefix": [], "filter": {"n": {"$gt": next(iter(more.values()), 0)}}},
        {"op": "list_namespaces", "prefix": ["fuzz", "*"]},
        {"op": "delete", "namespace": ["fuzz", "b"], "key": "k"},
    ]
    return {**ops[luck % len(ops)], **(more if luck % 2 else {})}


def _list(value: object) -> list[Any]:
    return value if isinstance(value, list) else [value]


def answered(case: Case, session: requests.Session, url: str) -> Response:
    """The answer to a case, which is read for PATIENCE seconds at most."""
    began = time.monotonic()
    request = case.as_transport_kwargs(base_url=url)
    with session.request(**request, stream=True, allow_redirects=False, timeout=20) as response:
        pieces: list[bytes] = []
        cut = False
        for piece in response.iter_content(None):
            pieces.append(piece)
            if cut := time.monotonic() - began > PATIENCE:
                break
        headers = {name: [value] for name, value in response.headers.items()}
        return Response(
            response.status_code,
            headers,
            b"".join(pieces),
            response.request,
            time.monotonic() - began,
            verify=False,
            encoding=response.encoding,
            stream_cut_short=cut,
        )
