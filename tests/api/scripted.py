"""A client of the API, and a worker whose every step the test decides: it speaks the protocol over HTTP."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any, Self
from uuid import uuid4

import httpx
import psycopg

Json = dict[str, Any]
Handler = Callable[["Work"], Awaitable[None]]

MISSING = "00000000-0000-4000-8000-000000000000"


class Api:
    """Calls a server; with SQL beside it, to see what is stored."""

    def __init__(self, http: httpx.AsyncClient, dsn: str) -> None:
        self.http = http
        self.dsn = dsn
        self.graph_id = f"graph-{uuid4().hex[:10]}"

    @classmethod
    @asynccontextmanager
    async def of(cls, url: str, dsn: str) -> AsyncIterator[Self]:
        """A client of the server at `url`, whose database is `dsn`."""
        async with httpx.AsyncClient(base_url=url, timeout=30) as http:
            yield cls(http, dsn)

    async def call(self, method: str, path: str, body: object = None, status: int = 200, **options: Any) -> Any:
        """The JSON of the answer, which must have that status; None for an empty one."""
        if body is not None:
            options["json"] = body
        response = await self.http.request(method, path, **options)
        assert response.status_code == status, f"{method} {path}: {response.status_code} {response.text}"
        return response.json() if response.content else None

    async def refused(self, method: str, path: str, body: object = None, status: int = 422, **options: Any) -> Any:
        """(code, field) of an error, whose form is checked."""
        if body is not None:
            options["json"] = body
        response = await self.http.request(method, path, **options)
        assert response.status_code == status, f"{method} {path}: {response.status_code} {response.text}"
        assert response.headers["content-type"] == "application/json"
        error = response.json()
        assert isinstance(error["detail"], str)
        assert error["detail"]
        return error["code"], error.get("field")

    def rows(self, query: Any, *parameters: object) -> list[tuple[Any, ...]]:
        """What the database says."""
        with psycopg.connect(self.dsn, autocommit=True) as connection:
            return connection.execute(query, parameters).fetchall()

    async def thread(self, **request: object) -> str:
        """A new thread's id."""
        made = await self.call("POST", "/threads", request)
        return str(made["thread_id"])

    async def run(self, thread_id: str | None, status: int = 200, **body: object) -> Json:
        """A new run of this test's graph; without a thread a stateless one."""
        place = f"/threads/{thread_id}/runs" if thread_id else "/runs"
        made: Json = await self.call("POST", place, {"assistant_id": self.graph_id, "input": {"n": 1}, **body}, status)
        return made

    async def run_status(self, run: Json) -> str:
        """The run's status now."""
        seen = await self.call("GET", f"/threads/{run['thread_id']}/runs/{run['run_id']}")
        return str(seen["status"])

    @asynccontextmanager
    async def stream(
        self, method: str, path: str, body: object = None, status: int = 200, **options: Any
    ) -> AsyncIterator[Stream]:
        """An event stream to read frame by frame."""
        async with self.http.stream(method, path, json=body, **options) as response:
            assert response.status_code == status, (await response.aread()).decode()
            yield Stream(response)

    async def frames(self, method: str, path: str, body: object = None, **options: Any) -> list[Frame]:
        """All frames of a stream that ends."""
        async with self.stream(method, path, body, **options) as stream:
            return [frame async for frame in stream]

    async def worker(self, **options: Any) -> Worker:
        """A registered worker of this test's graph."""
        worker = Worker(self, f"worker-{uuid4().hex[:10]}")
        await worker.register(**options)
        return worker

    @asynccontextmanager
    async def working(self, handler: Handler, **options: Any) -> AsyncIterator[Worker]:
        """A worker that does `handler` with each run, until the block is left."""
        worker = await self.worker(**options)
        task = asyncio.create_task(worker.serve(handler))
        try:
            yield worker
        finally:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)


class Frame:
    """One event as it came."""

    def __init__(self, lines: list[str]) -> None:
        fields = [line.partition(": ")[::2] for line in lines]
        self.order = [name for name, _ in fields]
        named = dict(fields)
        self.event = named.get("event", "")
        self.id = named.get("id")
        self.data = json.loads(named["data"]) if named.get("data") else None

    def __repr__(self) -> str:
        return f"<{self.event} {self.data}{f' id={self.id}' if self.id else ''}>"


class Stream:
    """The frames of a response; comments are counted."""

    def __init__(self, response: httpx.Response) -> None:
        self.response = response
        self.heartbeats = 0
        self._lines = response.aiter_lines()

    async def quiet(self, heartbeats: int) -> None:
        """Read until so many heartbeats came in a row."""
        async for line in self._lines:
            assert not line or line.startswith(":"), line
            self.heartbeats += bool(line)
            if self.heartbeats >= heartbeats:
                return

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> Frame:
        lines: list[str] = []
        async for line in self._lines:
            if line.startswith(":"):
                self.heartbeats += 1
            elif line:
                lines.append(line)
            elif lines:
                return Frame(lines)
        raise StopAsyncIteration


class Worker:
    """A worker process, as the server sees it."""

    def __init__(self, api: Api, worker_id: str) -> None:
        self.api = api
        self.worker_id = worker_id
        self.path = f"/workers/{worker_id}"
        self.registered: Json = {}

    async def register(self, *, definition: Json | None = None, **options: Any) -> None:
        """Register with this test's graph."""
        graph = {
            "graph_id": self.api.graph_id,
            "definition": definition or {"nodes": [{"id": "a", "type": "function"}], "edges": [], "entry_point": "a"},
        }
        body = {"worker_id": self.worker_id, "capacity": 10, "lease_seconds": 30, "graphs": [graph], **options}
        self.registered = await self.api.call("POST", "/workers", body)

    async def poll(self, max_runs: int = 1, wait_seconds: float = 5, held: tuple[int, ...] = ()) -> Json:
        """The answer of a claim."""
        body = {"max_runs": max_runs, "wait_seconds": wait_seconds, "held": list(held)}
        answer: Json = await self.api.call("POST", f"{self.path}/claim", body)
        return answer

    async def claim(self, wait_seconds: float = 5) -> Work:
        """The one run there is."""
        answer = await self.poll(1, wait_seconds)
        assert len(answer["runs"]) == 1, answer
        return Work(self, answer["runs"][0])

    async def write(self, *writes: Json) -> list[Json]:
        """The results of some Writes."""
        answer = await self.api.call("POST", f"{self.path}/writes", {"writes": list(writes)})
        results: list[Json] = answer["results"]
        return results

    async def beat(self, *held: int) -> Json:
        """The answer of a heartbeat."""
        answer: Json = await self.api.call(
            "POST", f"{self.path}/heartbeat", {"held": list(held), "active_runs": len(held)}
        )
        return answer

    async def serve(self, handler: Handler) -> None:
        """Do each run with the handler."""
        async with asyncio.TaskGroup() as group:
            while True:
                for claim in (await self.poll(10, 25))["runs"]:
                    group.create_task(handler(Work(self, claim)))


class Work:
    """A claimed run in the worker's hands."""

    def __init__(self, worker: Worker, claim: Json) -> None:
        self.worker = worker
        self.claim = claim
        self.run_id: str = claim["run_id"]
        self.token: int = claim["token"]
        self.head: str | None = (claim["checkpoint"] or {}).get("checkpoint_id")
        self.step_no: int = (claim["checkpoint"] or {}).get("step", -1)
        self.write_no = 0
        self.values: Json = dict((claim["checkpoint"] or {}).get("values") or {})

    def envelope(self, **parts: object) -> Json:
        """The next Write."""
        self.write_no += 1
        return {"run_id": self.run_id, "token": self.token, "write_no": self.write_no, **parts}

    async def write(self, **parts: object) -> Json:
        """Commit one Write; its result."""
        [result] = await self.worker.write(self.envelope(**parts))
        return result

    def checkpoint(self, update: Json, following: list[str]) -> Json:
        """A checkpoint after the head, which becomes the head."""
        made = str(uuid4())
        parent, self.head = self.head, made
        self.step_no += 1
        self.values.update(update)
        return {
            "checkpoint_id": made,
            "parent_checkpoint_id": parent,
            "step": self.step_no,
            "source": "loop",
            "channels": {name: {"set": value} for name, value in update.items()},
            "next": following,
            "tasks": [{"id": str(uuid4()), "name": node, "path": ["__pull__", node]} for node in following],
            "metadata": {},
        }

    async def step(self, update: Json, *following: str, node: str = "a", end: Json | None = None) -> Json:
        """One superstep in one Write: checkpoint, update and values frames, and perhaps the end."""
        made = self.checkpoint(update, list(following))
        modes = self.claim["kwargs"]["stream_mode"]
        events: list[Json] = []
        if "updates" in modes:
            events.append({"event": "updates", "data": {node: update}})
        if "values" in modes:
            events.append({"event": "values", "checkpoint_id": self.head})
        return await self.write(
            checkpoint_id=self.head, checkpoints=[made], events=events, **({"end": self.ending(end)} if end else {})
        )

    def ending(self, end: Json) -> Json:
        """An end; a stateless run's carries its output."""
        output = {"output": self.values} if self.claim["temporary"] and end["status"] == "success" else {}
        return {**output, **end}

    async def say(self, *events: tuple[str, object]) -> Json:
        """Events alone."""
        return await self.write(events=[{"event": name, "data": data} for name, data in events])

    async def end(self, status: str = "success", **more: object) -> Json:
        """The end alone."""
        return await self.write(end=self.ending({"status": status, **more}))


async def echo(work: Work) -> None:
    """One superstep that writes the input into the state, and the end."""
    await work.step({"seen": work.claim["kwargs"].get("input")}, end={"status": "success"})
