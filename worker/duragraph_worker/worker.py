"""A worker: claims runs of its graphs, executes many at once, and hands back what it cannot finish."""

from __future__ import annotations

import asyncio
import contextlib
import functools
import logging
import os
import platform
import re
import secrets
import signal
import socket
import time
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Self

from duragraph_worker.backoff import Backoff
from duragraph_worker.client import ApiError
from duragraph_worker.embedder import GRAPH_ID as EMBEDDER_ID
from duragraph_worker.embedder import Embedder, with_meanings
from duragraph_worker.errors import DuraGraphError, GraphError, LeaseLost
from duragraph_worker.executor import Executor
from duragraph_worker.graph import GraphInstance, instance_of
from duragraph_worker.heartbeat import Heartbeat
from duragraph_worker.hosted import HostedGraph
from duragraph_worker.journal import Claim
from duragraph_worker.worker_client import Claimed, WorkerClient
from duragraph_worker.writer import RunJournal, Writer

log = logging.getLogger("duragraph_worker")

_PROTOCOL = 2
_NAME = re.compile(r"[\w.:@-]{1,200}")
_LAST_WORDS_SECONDS = 5.0


class Worker:
    """Serves graphs to the control plane at `url`.

        Worker("http://localhost:8081").register(MyGraph).run()

    `name` is the worker's id, unique among live workers (default: host, process and a random part). A run whose worker
    has been silent for `lease_seconds` goes to another. On SIGTERM or SIGINT the worker claims no more, lets its runs
    end for up to `shutdown_timeout` seconds, hands the rest back without spending an attempt, and deregisters; a second
    signal hands back at once. `build_id` names the deployed code. With an
    `embedder` the store can be searched by meaning.

    While the control plane is away runs go on, what they write queues up, and the worker comes back by itself.
    """

    def __init__(
        self,
        url: str = "http://localhost:8081",
        *,
        graphs: Iterable[Any] = (),
        name: str | None = None,
        max_concurrent_runs: int = 10,
        lease_seconds: int = 30,
        shutdown_timeout: float = 60,
        build_id: str | None = None,
        embedder: Embedder | None = None,
    ) -> None:
        if max_concurrent_runs < 1:
            raise ValueError(f"max_concurrent_runs is {max_concurrent_runs}; a worker needs at least 1")
        if lease_seconds < 1:
            raise ValueError(f"lease_seconds is {lease_seconds}; a lease needs at least 1")
        if name is not None and not _NAME.fullmatch(name):
            raise ValueError(f"{name!r} cannot name a worker; use letters, digits and . _ : @ -, up to 200")
        self.url = url
        self.worker_id = name or f"{socket.gethostname()}-{os.getpid()}-{secrets.token_hex(3)}"
        self.max_concurrent_runs = max_concurrent_runs
        self.lease_seconds = lease_seconds
        self.shutdown_timeout = shutdown_timeout
        self.build_id = build_id
        self.graphs: dict[str, GraphInstance | HostedGraph] = {}
        for graph in graphs:
            self.register(graph)
        self.embedder = embedder
        if embedder is not None:
            self.register(embedder)
        self._running: dict[int, _Run] = {}
        self._stopping = asyncio.Event()
        self._hurrying = asyncio.Event()
        self._slot_freed = asyncio.Event()
        self._listening = True
        self._status = "active"
        self._loop: asyncio.AbstractEventLoop | None = None

    @property
    def active_runs(self) -> int:
        """How many runs are at work."""
        return len(self._running)

    def register(self, graph: Any) -> Self:
        """Serve `graph`: a class declared with `@Graph`, an instance of one, or a hosted graph. Raises `GraphError` for
        others."""
        if isinstance(graph, HostedGraph):
            self.graphs[graph.graph_id] = graph
            return self
        instance = instance_of(graph)
        if instance.topology().graph_id == EMBEDDER_ID:
            raise GraphError(f'the id "{EMBEDDER_ID}" is kept for the embedder; choose another for the graph')
        self.graphs[instance.topology().graph_id] = instance
        return self

    def run(self) -> None:
        """Serve until SIGTERM or SIGINT. Raises `ApiError` where the control plane refuses the registration."""
        with asyncio.Runner() as runner:
            loop = runner.get_loop()
            loop.set_default_executor(_Threads(max(32, 4 * self.max_concurrent_runs), "duragraph-node"))
            for one in (signal.SIGTERM, signal.SIGINT):
                loop.add_signal_handler(one, self._on_signal, one.name)
            runner.run(self.arun())

    def stop(self) -> None:
        """Begin to drain, from any thread; a second call hands the runs back at once."""
        if self._loop is None:
            self._stopping.set()
        else:
            with contextlib.suppress(RuntimeError):  # the loop is closed: the worker has stopped already
                self._loop.call_soon_threadsafe(self._stop)

    async def arun(self) -> None:
        """Serve until `stop()`. Plain functions run in the loop's default executor, whose size is up to the caller."""
        if not self.graphs:
            raise DuraGraphError("this worker has no graph; call register(graph) first")
        self._loop = asyncio.get_running_loop()
        for graph in self.graphs.values():
            if isinstance(graph, HostedGraph):
                await graph.prepare()
        client = WorkerClient(self.url, self._registration())
        try:
            if await self._unless_stopped(client.register()):
                self._log("worker registered", url=self.url, graphs=sorted(self.graphs))
                await self._serve(client)
        finally:
            await client.close()
            self._log("worker stopped")

    async def _serve(self, client: WorkerClient) -> None:
        meaning = None if self.embedder is None else functools.partial(with_meanings, self.embedder)
        writer = Writer(client, meaning=meaning)
        heartbeat = Heartbeat(client, lambda: list(self._running), self._news)
        writing = asyncio.create_task(writer.run())
        claiming = asyncio.create_task(self._claim_on(client, writer))
        stopped = asyncio.create_task(self._stopping.wait())
        heartbeat.start()
        try:
            # The first two end only by a defect, which must not go unseen; the runs are handed back all the same.
            await asyncio.wait({writing, claiming, stopped}, return_when=asyncio.FIRST_COMPLETED)
            if writing.done():
                self._hurrying.set()
            await self._drain(client, writer, claiming)
        finally:
            # Whatever may still register again has ended when the worker leaves.
            await heartbeat.stop()
            try:
                await _settle(stopped, writing, claiming)
            finally:
                await client.deregister()

    async def _claim_on(self, client: WorkerClient, writer: Writer) -> None:
        backoff = Backoff(limit=1.0)
        while not self._stopping.is_set():
            started = time.monotonic()
            try:
                claimed = await self._claim(client)
            except ApiError as refusal:
                self._log("claim refused", logging.ERROR, reason=str(refusal))
                await self._pause(5.0)
                continue
            if claimed is None:
                continue
            self._lose(claimed.lost)
            for claim in claimed.runs:
                self._start(claim, writer)
            if claimed.runs or claimed.lost or time.monotonic() - started > 0.5:
                backoff.reset()
            else:
                await self._pause(backoff.next())  # a server that never waits must not be asked in a tight loop

    async def _claim(self, client: WorkerClient) -> Claimed | None:
        """The answer to a claim; None where a slot came free while all were taken."""
        free = self.max_concurrent_runs - len(self._running)
        if free > 0:
            return await client.claim(free, client.poll_seconds, list(self._running))
        self._slot_freed.clear()
        if await self._slot_within(1.0 if self._listening else client.heartbeat_seconds):
            return None
        # All slots are long taken: a claim of nothing, held as any other, brings cancellations at once.
        asking = asyncio.create_task(client.claim(0, client.poll_seconds, list(self._running)))
        waiting = asyncio.create_task(self._slot_freed.wait())
        started = time.monotonic()
        try:
            await asyncio.wait({asking, waiting}, return_when=asyncio.FIRST_COMPLETED)
            if asking.done():
                # A server that does not hold it says all there is to say by heartbeats.
                self._listening = time.monotonic() - started > 0.5
                self._lose(asking.result().lost)
            return None
        finally:
            await _settle(asking, waiting)

    def _start(self, claim: Claim, writer: Writer) -> None:
        for earlier in [run for run in self._running.values() if run.claim["run_id"] == claim["run_id"]]:
            earlier.journal.lose()
        self._running[claim["token"]] = _Run(self, claim, writer)

    def _finished(self, run: _Run) -> None:
        self._running.pop(run.claim["token"], None)
        self._slot_freed.set()

    async def _drain(self, client: WorkerClient, writer: Writer, claiming: asyncio.Task[None]) -> None:
        self._stopping.set()
        self._log("worker draining", runs=len(self._running))
        telling = asyncio.create_task(client.drain())
        deadline = time.monotonic() + self.shutdown_timeout
        # The poll under way may bring runs that are claimed already; after the drain was heard none are.
        await asyncio.wait({telling}, timeout=min(2.0, self.shutdown_timeout))
        await asyncio.wait({claiming}, timeout=0.1)
        claiming.cancel()
        await asyncio.wait({claiming})
        await self._runs_ended(deadline)
        for run in list(self._running.values()):
            run.hand_back()
        await self._runs_ended(time.monotonic() + _LAST_WORDS_SECONDS, hurry=False)
        for run in self._running.values():
            run.log("run did not stop", logging.ERROR)
        await writer.drained(_LAST_WORDS_SECONDS)
        await _settle(telling)

    async def _runs_ended(self, deadline: float, *, hurry: bool = True) -> None:
        hurrying = asyncio.create_task(self._hurrying.wait())
        try:
            while self._running and time.monotonic() < deadline and not (hurry and self._hurrying.is_set()):
                tasks = {run.task for run in self._running.values()}
                watched = tasks | ({hurrying} if hurry else set())
                await asyncio.wait(watched, timeout=deadline - time.monotonic(), return_when=asyncio.FIRST_COMPLETED)
                await asyncio.sleep(0)  # lets the done callbacks take the ended runs out
        finally:
            hurrying.cancel()

    def _news(self, lost: Sequence[int], status: str) -> None:
        """From the heartbeat's thread."""
        assert self._loop is not None
        with contextlib.suppress(RuntimeError):  # the loop is closed: nothing runs any more
            self._loop.call_soon_threadsafe(self._take_news, lost, status)

    def _take_news(self, lost: Sequence[int], status: str) -> None:
        self._lose(lost)
        if status != self._status and not self._stopping.is_set():
            self._log("worker told by an operator", status=status)
        self._status = status

    def _lose(self, tokens: Sequence[int]) -> None:
        for token in tokens:
            if run := self._running.get(token):
                run.journal.lose()

    def _on_signal(self, name: str) -> None:
        self._log("signal received", signal=name)
        self._stop()

    def _stop(self) -> None:
        if self._stopping.is_set():
            self._hurrying.set()
        self._stopping.set()

    async def _pause(self, seconds: float) -> None:
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self._stopping.wait(), seconds)

    async def _slot_within(self, seconds: float) -> bool:
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self._slot_freed.wait(), seconds)
        return self._slot_freed.is_set() or self._stopping.is_set()

    async def _unless_stopped(self, work: Any) -> bool:
        """Await `work` unless the worker is stopped first; whether it was done. Raises what it raises."""
        doing = asyncio.ensure_future(work)
        stopped = asyncio.create_task(self._stopping.wait())
        try:
            await asyncio.wait({doing, stopped}, return_when=asyncio.FIRST_COMPLETED)
            if doing.done():
                doing.result()
                return True
            return False
        finally:
            await _settle(doing, stopped)

    def _registration(self) -> dict[str, Any]:
        return {
            "worker_id": self.worker_id,
            "capacity": self.max_concurrent_runs,
            "lease_seconds": self.lease_seconds,
            "build_id": self.build_id,
            "protocol": _PROTOCOL,
            "graphs": [
                {"graph_id": graph_id, "definition": graph.definition(), "schemas": graph.schemas()}
                for graph_id, graph in self.graphs.items()
            ],
            "details": {"host": socket.gethostname(), "pid": os.getpid(), "python": platform.python_version()},
        }

    def _log(self, message: str, level: int = logging.INFO, **fields: Any) -> None:
        log.log(level, message, extra={"worker_id": self.worker_id, **fields})


class _Run:
    """One claimed run and the task that executes it."""

    def __init__(self, worker: Worker, claim: Claim, writer: Writer) -> None:
        self.claim = claim
        self.journal: RunJournal = writer.journal(claim["run_id"], claim["token"], self._on_lost)
        self._worker = worker
        self._started = time.monotonic()
        self.task = asyncio.create_task(self._execute(), name=f"run {claim['run_id']}")
        self.task.add_done_callback(lambda _: worker._finished(self))
        self.log("run claimed", attempt=claim.get("attempt"), graph_id=claim["graph_id"])

    def hand_back(self) -> None:
        """Stop the code and give the run back, without spending an attempt."""
        self.task.cancel()

    def _on_lost(self) -> None:
        self.task.cancel()

    async def _execute(self) -> None:
        try:
            await self._run()
        except LeaseLost:
            self._log_end("run lost")
        except asyncio.CancelledError:
            if self.journal.lost:
                self._log_end("run lost")
            else:
                outcome = "run ended" if self.journal.ending else "run handed back"
                await self._last_word({"status": "release"})
                self._log_end(outcome)
        except Exception as problem:
            # A failing node does not come here; this is a Write that was refused, or a defect of the executor.
            log.exception("run broke", extra=self._fields())
            await self._last_word(
                {"status": "error", "error": {"error": type(problem).__name__, "message": str(problem)}}
            )

    async def _run(self) -> None:
        graph = self._worker.graphs.get(self.claim["graph_id"])
        if graph is None:
            raise DuraGraphError(f'this worker has no graph "{self.claim["graph_id"]}"; start one that has it')
        if isinstance(graph, HostedGraph):
            outcome = await graph.execute(self.claim, self.journal)
        else:
            outcome = await Executor(graph, self.claim, self.journal).run()
        error = f"{outcome.error['error']}: {outcome.error['message']}" if outcome.error else None
        self._log_end("run ended", status=outcome.status, error=error)

    async def _last_word(self, end: Any) -> None:
        try:
            async with asyncio.timeout(_LAST_WORDS_SECONDS if self._worker._stopping.is_set() else None):
                await self.journal.commit({"end": end})
        except (DuraGraphError, TimeoutError) as problem:
            self.log("run not handed over; its lease will expire", logging.WARNING, reason=str(problem))

    def log(self, message: str, level: int = logging.INFO, **fields: Any) -> None:
        """One line with the run's and the worker's id."""
        log.log(level, message, extra={**self._fields(), **fields})

    def _log_end(self, message: str, **fields: Any) -> None:
        self.log(message, duration_ms=round(1000 * (time.monotonic() - self._started), 1), **fields)

    def _fields(self) -> dict[str, Any]:
        return {"run_id": self.claim["run_id"], "worker_id": self._worker.worker_id}


class _Threads(ThreadPoolExecutor):
    """Threads for plain functions. One that never returns must not hold up the end of a drained worker."""

    def shutdown(self, wait: bool = True, *, cancel_futures: bool = False) -> None:
        super().shutdown(wait=False, cancel_futures=True)


async def _settle(*tasks: asyncio.Future[Any]) -> None:
    """Cancel what still runs, and raise what a finished one raised."""
    for task in tasks:
        task.cancel()
    results = await asyncio.gather(*tasks, return_exceptions=True)
    for result in results:
        if isinstance(result, Exception):
            raise result
