"""What the tests of the SQL functions act with: a caller, a worker with graphs, and runs brought to a point."""

from __future__ import annotations

import json
from collections import Counter
from datetime import datetime, timedelta
from typing import Any
from uuid import UUID, uuid4

import psycopg
from psycopg import sql

COUNTER = {
    "graph_id": "counter",
    "definition": {
        "nodes": [{"id": "prepare"}, {"id": "increment"}, {"id": "finish"}],
        "edges": [
            {"source": "prepare", "target": "increment"},
            {"source": "increment", "target": {"more": "increment", "done": "finish"}},
        ],
        "entry_point": "prepare",
        "channels": {
            "target": {},
            "count": {"reducer": "add"},
            "log": {"reducer": "append"},
            "facts": {"reducer": "merge"},
            "messages": {"reducer": "messages"},
            "odd": {"reducer": "my_module.my_reducer"},
        },
    },
    "schemas": {"input_schema": {"type": "object", "properties": {"target": {"type": "integer"}}}},
}


class Scene:
    """Acts through the SQL functions on one connection, as the API and a worker would."""

    def __init__(self, connection: psycopg.Connection[Any], tenant: int = 1) -> None:
        self.connection = connection
        self.tenant = tenant
        self.now: datetime = self.value("select now()")
        self._write_no: Counter[int] = Counter()

    def value(self, query: str, *parameters: object) -> Any:
        """The one value of a query."""
        row = self.connection.execute(query, parameters).fetchone()
        assert row is not None, f"no row: {query}"
        return row[0]

    def rows(self, query: str, *parameters: object) -> list[dict[str, Any]]:
        """All rows of a query, by column."""
        cursor = self.connection.cursor(row_factory=psycopg.rows.dict_row)
        return cursor.execute(query, parameters).fetchall()

    def call(self, function: str, *arguments: object) -> Any:
        """duragraph.<function>(tenant, ...); dicts and lists go as JSON."""
        return self.bare(function, self.tenant, *arguments)

    def bare(self, function: str, *arguments: object) -> Any:
        """duragraph.<function>(...), without a tenant."""
        query = sql.SQL("select duragraph.{}({})").format(
            sql.Identifier(function), sql.SQL(", ").join([sql.Placeholder()] * len(arguments))
        )
        sent = [
            json.dumps(a) if isinstance(a, dict) or (isinstance(a, list) and not _texts(a)) else a for a in arguments
        ]
        row = self.connection.execute(query, sent).fetchone()
        assert row is not None, "a function gives one row"
        return row[0]

    def page(self, function: str, **request: object) -> tuple[list[Any], int, int | None]:
        """(items, total, next_offset) of a search."""
        query = sql.SQL("select items, total, next_offset from duragraph.{}(%s, %s)").format(sql.Identifier(function))
        row = self.connection.execute(query, (self.tenant, json.dumps(request))).fetchone()
        assert row is not None, "a search gives one row"
        return json.loads(row[0]), row[1], row[2]

    def refused(self, function: str, *arguments: object) -> tuple[str, str | None]:
        """(SQLSTATE, stable code) of a call that must fail; nothing of it stays."""
        try:
            with self.connection.transaction():
                self.call(function, *arguments)
        except psycopg.Error as error:
            detail = error.diag.message_detail or ""
            return error.sqlstate or "", json.loads(detail)["code"] if detail.startswith("{") else None
        raise AssertionError(f"{function} was not refused")

    def wait(self, seconds: float) -> None:
        """Let the engine's clock go on."""
        self.now += timedelta(seconds=seconds)
        self.connection.execute("select set_config('duragraph.time', %s, false)", (self.now.isoformat(),))

    # a worker and its runs

    def worker(self, worker_id: str = "worker-1", *graphs: dict[str, Any], **settings: object) -> int:
        """Register a worker; its key."""
        request = {"worker_id": worker_id, "graphs": list(graphs) or [COUNTER], **settings}
        key: int = self.call("register_worker", request)["worker_key"]
        return key

    def thread(self, **request: object) -> str:
        """A new thread's id."""
        thread_id: str = self.call("create_thread", request)["thread_id"]
        return thread_id

    def run(self, thread_id: str | None, graph: str = "counter", **body: object) -> str:
        """A new run's id."""
        request = {"thread_id": thread_id, "body": {"assistant_id": graph, **body}}
        run_id: str = self.call("create_runs", [request])[0]["run_id"]
        return run_id

    def claim(self, worker_key: int, limit: int = 1) -> list[dict[str, Any]]:
        """What the worker is given."""
        claims: list[dict[str, Any]] = self.bare("claim_runs", worker_key, limit)["runs"]
        return claims

    def commit(self, claim: dict[str, Any], **write: object) -> None:
        """One write of the claimed run; the engine must take it."""
        self._write_no[claim["token"]] += 1
        whole = {
            "run_id": claim["run_id"],
            "token": claim["token"],
            "write_no": self._write_no[claim["token"]],
            **write,
        }
        assert self.bare("commit_steps", [whole])["refused"] == []

    def superstep(
        self,
        claim: dict[str, Any],
        parent: str | None,
        step: int,
        channels: dict[str, Any],
        *following: str,
        source: str = "loop",
        **write: object,
    ) -> str:
        """Commit a checkpoint that is followed by these nodes; its id."""
        checkpoint_id = str(self.bare("make_id"))
        tasks = [{"id": task_id(checkpoint_id, n), "name": n, "path": ["__pull__", n]} for n in following]
        checkpoint = {
            "checkpoint_id": checkpoint_id,
            "parent_checkpoint_id": parent,
            "step": step,
            "source": source,
            "channels": channels,
            "next": list(following),
            "tasks": tasks,
        }
        self.commit(claim, checkpoint_id=checkpoint_id, checkpoints=[checkpoint], **write)
        return checkpoint_id

    def counted(self, thread_id: str, worker_key: int, end: str | None = "success") -> tuple[dict[str, Any], list[str]]:
        """Run `counter` on the thread up to 1; the claim and the checkpoints, oldest first."""
        self.run(thread_id, input={"target": 1})
        [claim] = self.claim(worker_key)
        head = (claim["checkpoint"] or {}).get("checkpoint_id")
        first = (claim["checkpoint"] or {"step": -2})["step"] + 1
        made = [self.superstep(claim, head, first, {}, "__start__", source="input")]
        made.append(self.superstep(claim, made[-1], first + 1, {"target": {"set": 1}}, "prepare"))
        made.append(
            self.superstep(
                claim,
                made[-1],
                first + 2,
                {"count": {"set": 0}, "log": {"append": ["prepare"]}},
                "increment",
                steps=[step(made[-1], "prepare", {"count": 0, "log": ["prepare"]})],
            )
        )
        made.append(
            self.superstep(
                claim,
                made[-1],
                first + 3,
                {"count": {"set": 1}, "log": {"append": ["increment"]}},
                "finish",
                steps=[step(made[-1], "increment", {"count": 1, "log": ["increment"]})],
            )
        )
        made.append(
            self.superstep(
                claim,
                made[-1],
                first + 4,
                {"log": {"append": ["finish"]}},
                steps=[step(made[-1], "finish", {"log": ["finish"]})],
            )
        )
        if end:
            self.commit(claim, end={"status": end})
        return claim, made


def task_id(checkpoint_id: str, node: str) -> str:
    """An id that is the same each time."""
    return str(UUID(bytes=(UUID(checkpoint_id).bytes + node.encode().ljust(16, b"."))[8:24]))


def step(checkpoint_id: str, node: str, result: object, **more: object) -> dict[str, Any]:
    """A ledger row of a completed node."""
    return {
        "checkpoint_id": checkpoint_id,
        "task_id": task_id(checkpoint_id, node),
        "kind": "node",
        "name": node,
        "duration_ms": 5,
        "result": result,
        **more,
    }


def question(checkpoint_id: str, node: str, value: object, **more: object) -> dict[str, Any]:
    """A question that a node asks."""
    return {
        "checkpoint_id": checkpoint_id,
        "task_id": task_id(checkpoint_id, node),
        "ordinal": 0,
        "interrupt_id": uuid4().hex,
        "node": node,
        "value": value,
        **more,
    }


def _texts(items: list[object]) -> bool:
    return bool(items) and all(isinstance(item, str) for item in items)
