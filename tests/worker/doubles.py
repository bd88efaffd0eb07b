"""A real HTTP server on a free port whose answers a test decides, and on it a control plane as a worker sees one."""

from __future__ import annotations

import contextlib
import itertools
import json
import socket
import threading
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qsl, unquote, urlsplit

from duragraph_worker.errors import StoreError
from duragraph_worker.local_store import LocalStore
from tests.waiting import wait_for

Json = dict[str, Any]


@dataclass(frozen=True)
class Request:
    method: str
    path: str
    query: dict[str, str]
    headers: dict[str, str]
    body: Any


@dataclass(frozen=True)
class Answer:
    """`chunks` is a streamed body; `cut` closes the connection before the body's end; `drop` answers nothing at all."""

    status: int = 200
    body: Any = None
    headers: dict[str, str] = field(default_factory=dict)
    chunks: Iterable[bytes] | None = None
    cut: bool = False
    drop: bool = False


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    allow_reuse_address = True
    request_queue_size = 64
    answer: Callable[[Request], Answer]

    def __init__(self, address: tuple[str, int], handler: type[BaseHTTPRequestHandler]) -> None:
        super().__init__(address, handler)
        self.connections: set[socket.socket] = set()
        self.hung_up = threading.Event()

    def process_request(self, request: Any, client_address: Any) -> None:
        self.connections.add(request)
        super().process_request(request, client_address)

    def shutdown_request(self, request: Any) -> None:
        self.connections.discard(request)
        super().shutdown_request(request)

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A client went away in the middle of its answer."""
        self.hung_up.set()


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: _Server

    def handle_one_request(self) -> None:
        self.raw_requestline = self.rfile.readline(65537)
        if not self.raw_requestline or not self.parse_request():
            self.close_connection = True
            return
        url = urlsplit(self.path)
        raw = self.rfile.read(int(self.headers.get("content-length") or 0))
        headers = {name.lower(): value for name, value in self.headers.items()}
        body = json.loads(raw) if raw else None
        self._send(
            self.server.answer(Request(self.command, unquote(url.path), dict(parse_qsl(url.query)), headers, body))
        )

    def _send(self, answer: Answer) -> None:
        if answer.drop:
            self.close_connection = True
            return
        self.send_response(answer.status)
        for name, value in answer.headers.items():
            self.send_header(name, value)
        if answer.chunks is not None:
            self._send_chunks(answer)
            return
        raw = answer.body if isinstance(answer.body, bytes) else json.dumps(answer.body).encode()
        raw = b"" if answer.body is None else raw
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(raw)))
        self.end_headers()
        self.wfile.write(raw[: len(raw) // 2] if answer.cut else raw)
        self.wfile.flush()
        self.close_connection = self.close_connection or answer.cut

    def _send_chunks(self, answer: Answer) -> None:
        assert answer.chunks is not None
        self.send_header("Transfer-Encoding", "chunked")
        self.end_headers()
        for chunk in answer.chunks:
            self.wfile.write(b"%x\r\n%b\r\n" % (len(chunk), chunk))
            self.wfile.flush()
        if not answer.cut:
            self.wfile.write(b"0\r\n\r\n")
            self.wfile.flush()
        self.close_connection = answer.cut

    def log_message(self, format: str, *args: Any) -> None:
        """The tests look at the requests themselves."""


class HttpDouble:
    """Serves `answer(request)` from threads; `requests` are all that came. `stop()` and `start()` keep the port."""

    def __init__(self, answer: Callable[[Request], Answer]) -> None:
        self.requests: list[Request] = []
        self._answer = answer
        self._port = 0
        self._server: _Server | None = None
        self.start()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self._port}"

    @property
    def hung_up(self) -> threading.Event:
        """Set when a client went away in the middle of its answer."""
        assert self._server is not None
        return self._server.hung_up

    def start(self) -> None:
        self._server = _Server(("127.0.0.1", self._port), _Handler)
        self._port = self._server.server_address[1]
        self._server.answer = self._keep
        threading.Thread(target=self._server.serve_forever, args=(0.01,), daemon=True).start()

    def stop(self) -> None:
        """Break all connections, and refuse them from now on."""
        if self._server is not None:
            self._server.shutdown()
            for connection in list(self._server.connections):
                with contextlib.suppress(OSError):
                    connection.shutdown(socket.SHUT_RDWR)
            self._server.server_close()
            self._server = None

    def _keep(self, request: Request) -> Answer:
        self.requests.append(request)
        return self._answer(request)


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


@dataclass
class Held:
    """A run somebody holds."""

    claim: Json
    worker_id: str
    last_write: int = 0
    claimed_at: float = field(default_factory=time.monotonic)


class ControlPlaneDouble:
    """The worker protocol's server end with the fence (one token a claim) and the write numbers, and nothing else.

    Faults: `before(path_end, answer)` answers the next such request with it, nothing done; `drop_answer(path_end)` does
    what the next such request asks and closes the connection without a word; `forget()` forgets the workers.
    """

    def __init__(self) -> None:
        self.workers: dict[str, Json] = {}
        self.queue: list[Json] = []
        self.held: dict[int, Held] = {}
        self.ended: dict[str, Json] = {}
        self.writes: list[Json] = []
        self.wanted_lost: set[int] = set()
        self.invalid: Callable[[Json], str | None] = lambda write: None
        self.drained: set[str] = set()
        self.deregistered: list[str] = []
        self.lease_seconds = 30.0
        self.take_back_after = 10.0
        self.items = LocalStore()
        self._tokens = itertools.count(1)
        self._ended_tokens: set[int] = set()
        self._faults: dict[str, list[Answer]] = {}
        self._drops: dict[str, int] = {}
        self._changed = threading.Condition(threading.RLock())
        self.http = HttpDouble(self._answer)

    @property
    def url(self) -> str:
        return self.http.url

    def stop(self) -> None:
        with self._changed:
            self._changed.notify_all()
        self.http.stop()

    def submit(self, graph_id: str, input: Any = None, run_id: str | None = None, **claim: Any) -> str:
        """Queue a run; gives its id."""
        run_id = run_id or f"00000000-0000-7000-8000-{len(self.queue) + len(self.held) + len(self.ended):012d}"
        with self._changed:
            self.queue.append(
                {
                    "run_id": run_id,
                    "attempt": 1,
                    "max_attempts": 3,
                    "thread_id": run_id,
                    "temporary": False,
                    "assistant_id": "00000000-0000-5000-8000-000000000000",
                    "graph_id": graph_id,
                    "last_seq": 0,
                    "kwargs": {"input": input, "command": None, "config": {}, "context": {}, "stream_mode": ["values"]},
                    "resumed": False,
                    "checkpoint": None,
                    "journal": [],
                    **claim,
                }
            )
            self._changed.notify_all()
        return run_id

    def cancel(self, run_id: str, *, tell: bool = True) -> None:
        """End a held run at once: its lease is gone, whatever its worker does; `tell` it through its poll."""
        with self._changed:
            token = next(token for token, held in self.held.items() if held.claim["run_id"] == run_id)
            del self.held[token]
            if tell:
                self.wanted_lost.add(token)
            self._changed.notify_all()

    def before(self, path_end: str, answer: Answer, times: int = 1) -> None:
        self._faults.setdefault(path_end, []).extend([answer] * times)

    def drop_answer(self, path_end: str, times: int = 1) -> None:
        self._drops[path_end] = times

    def forget(self) -> None:
        with self._changed:
            self.workers.clear()
            self._changed.notify_all()

    def requests(self, path_end: str) -> list[Request]:
        return [request for request in self.http.requests if request.path.endswith(path_end)]

    def wait_ended(self, run_id: str, timeout: float = 10.0) -> Json:
        """The `end` of the run's last Write."""
        return wait_for(lambda: self.ended.get(run_id), timeout, what=f"run {run_id} to end")

    def _answer(self, request: Request) -> Answer:
        end = request.path.rsplit("/", 1)[-1]
        if self._faults.get(end):
            return self._faults[end].pop(0)
        answer = self._do(request, end)
        if self._drops.get(end):
            self._drops[end] -= 1
            return Answer(drop=True)
        return answer

    def _do(self, request: Request, end: str) -> Answer:
        with self._changed:
            if request.path == "/workers":
                self.workers[request.body["worker_id"]] = request.body
                beat = self.lease_seconds / 3
                return Answer(
                    body={"worker_id": request.body["worker_id"], "heartbeat_seconds": beat, "poll_seconds": 5}
                )
            worker_id = request.path.split("/")[2]
            if worker_id not in self.workers:
                return Answer(404, {"detail": "Worker not found. Register again.", "code": "worker_not_found"})
            if request.method == "DELETE":
                self.deregistered.append(worker_id)
                self.workers.pop(worker_id)
                return Answer(body={})
            if end == "drain":
                self.drained.add(worker_id)
                self._changed.notify_all()
                return Answer(body={})
            if end == "claim":
                return Answer(body=self._claim(worker_id, request.body))
            if end == "heartbeat":
                self._take_back(worker_id, request.body["held"])
                lost = [token for token in request.body["held"] if token not in self.held]
                status = "draining" if worker_id in self.drained else "active"
                return Answer(body={"acknowledged": True, "lost": lost, "status": status})
            if end == "store":
                return self._store(request.body)
            assert end == "writes", request.path
            tokens = [write["token"] for write in request.body["writes"]]
            assert len(tokens) == len(set(tokens)), "two Writes of one run in one request"
            return Answer(body={"results": [self._write(write) for write in request.body["writes"]]})

    def _store(self, body: Json) -> Answer:
        if body["token"] not in self.held:
            return Answer(409, {"detail": "The lease is lost.", "code": "lease_lost", "field": "token"})
        try:
            return Answer(body={"results": self.items.store_ops_in_thread(body["ops"])})
        except StoreError as refusal:
            return Answer(422, {"detail": str(refusal), "code": "invalid_field", "field": refusal.field})

    def _take_back(self, worker_id: str, held: list[int]) -> None:
        """Give out again what the worker does not know it holds: the answer to its claim was lost."""
        for token, one in list(self.held.items()):
            late = time.monotonic() - one.claimed_at > self.take_back_after
            if one.worker_id == worker_id and token not in held and late:
                del self.held[token]
                self.queue.append(one.claim)
                self._changed.notify_all()

    def _claim(self, worker_id: str, body: Json) -> Json:
        deadline = time.monotonic() + body["wait_seconds"]
        while True:
            lost = sorted(self.wanted_lost.intersection(body["held"]))
            self.wanted_lost.difference_update(lost)
            runs = [] if worker_id in self.drained else self.queue[: body["max_runs"]]
            del self.queue[: len(runs)]
            remaining = deadline - time.monotonic()
            if runs or lost or remaining <= 0 or worker_id in self.drained:
                return {"runs": [self._hold(run, worker_id) for run in runs], "lost": lost}
            self._changed.wait(remaining)

    def _hold(self, run: Json, worker_id: str) -> Json:
        claim = {**run, "token": next(self._tokens)}
        self.held[claim["token"]] = Held(claim, worker_id)
        return claim

    def _write(self, write: Json) -> Json:
        answer = {"run_id": write["run_id"], "token": write["token"]}
        held = self.held.get(write["token"])
        if held is None and write["token"] in self._ended_tokens and write.get("end"):
            return {**answer, "ok": True}
        if held is None:
            return {**answer, "ok": False, "reason": "lease_lost"}
        if write["write_no"] <= held.last_write:
            return {**answer, "ok": True}
        if reason := self.invalid(write):
            return {**answer, "ok": False, "reason": "invalid", "message": reason}
        held.last_write = write["write_no"]
        self.writes.append(write)
        if end := write.get("end"):
            del self.held[write["token"]]
            self.ended[write["run_id"]] = end
            self._ended_tokens.add(write["token"])
        return {**answer, "ok": True}
