"""How the server is and what it can do: /ok, /info, /health, /metrics, /openapi.json, /docs."""

from __future__ import annotations

import platform
import time
from functools import cached_property
from importlib.resources import files
from typing import Any

import orjson
from falcon import HTTP_200, HTTP_503, MEDIA_HTML
from falcon.asgi import Request, Response

from duragraph import __version__, sqlfiles
from duragraph.api.http import answer, answer_json, query_bool, query_choice
from duragraph.deps import Deps
from duragraph.errors import DuragraphError
from duragraph.openapi import document

Route = tuple[str, object, str | None]

_PATIENCE = 30.0

LANGGRAPH_API = "0.16.7"
"""The version of the official server whose behaviour this one keeps to; user interfaces look at it."""
LANGGRAPH = "1.2.22"

_FLAGS = {"assistants": True, "crons": True, "langsmith": False, "langsmith_tracing_replicas": False}
_CAPABILITIES = ["assistants", "threads", "runs", "streaming", "crons", "store", "workers", "mcp", "a2a"]
# What user interfaces look for; all but the kind belong to a hosted server.
_HOST = ("kind", "project_id", "host_revision_id", "revision_id", "tenant_id")
_METRICS_TEXT = "text/plain; version=0.0.4; charset=utf-8"
# The page and its script come from here and speak only to here.
_POLICY = "default-src 'none'; script-src 'unsafe-inline'; style-src 'unsafe-inline'; connect-src 'self'"


def routes(deps: Deps) -> list[Route]:
    """The paths of this resource."""
    health = HealthPages(deps)
    return [
        ("/", health, "ok"),
        ("/ok", health, "ok"),
        ("/info", health, "info"),
        ("/health", health, "health"),
        ("/metrics", health, "metrics"),
        ("/openapi.json", health, "openapi"),
        ("/docs", health, "docs"),
    ]


class HealthPages:
    """What a probe, an operator, a dashboard and a client ask the server about itself."""

    def __init__(self, deps: Deps) -> None:
        self._deps = deps
        self._awaited = deps.settings.await_workers
        self._patient_until = time.monotonic() + _PATIENCE

    async def on_get_ok(self, req: Request, resp: Response) -> None:
        """Whether the server answers; with `check_db` also whether its database does."""
        if waiting := self._waiting():
            answer(resp, {"ok": False, "services": {}, "detail": waiting}, HTTP_503)
            return
        ok = True
        if query_bool(req, "check_db"):
            ok = (await self._schema())["problem"] is None
        answer(resp, {"ok": ok, "services": {}}, HTTP_200 if ok else HTTP_503)

    def _waiting(self) -> str | None:
        """For which workers `/ok` still waits: those that the server was started together with."""
        here = self._deps.claims.held
        if here >= self._awaited or time.monotonic() > self._patient_until:
            self._awaited = 0
            return None
        return f"waiting for {self._awaited - here} of {self._awaited} workers"

    async def on_get_info(self, req: Request, resp: Response) -> None:
        """What the server is and can do."""
        answer(
            resp,
            {
                "version": LANGGRAPH_API,
                "langgraph_py_version": LANGGRAPH,
                "flags": _FLAGS,
                "metadata": {"server": "duragraph", "server_version": __version__},
                "host": dict.fromkeys(_HOST) | {"kind": "self-hosted"},
                "capabilities": _CAPABILITIES,
                "runtime_config": {"checkpointer": "postgres", "store": "postgres"},
                "platform": platform.system().lower(),
                "arch": platform.machine(),
                "mode": "serve",
                "auth_enabled": False,
            },
        )

    async def on_get_health(self, req: Request, resp: Response) -> None:
        """How each part is, and why the whole is degraded or unhealthy."""
        schema = await self._schema()
        hub = self._deps.hub
        reasons = [schema["problem"]] if schema["problem"] else []
        if not hub.listening:
            reasons.append(f"LISTEN does not work, so changes are polled for: {hub.problem}")
        pool = self._pool()
        if pool["requests_waiting"]:
            reasons.append(f"{pool['requests_waiting']} requests wait for a database connection")
        status = "unhealthy" if schema["problem"] else "degraded" if reasons else "healthy"
        body = {
            "status": status,
            "version": __version__,
            "reasons": reasons,
            "draining": self._deps.drain.begun,
            "listen": {"ok": hub.listening, "problem": hub.problem},
            "pool": pool,
            "schema_version": schema,
        }
        answer(resp, body, HTTP_503 if status == "unhealthy" else HTTP_200)

    async def on_get_metrics(self, req: Request, resp: Response) -> None:
        """The queue and the workers in numbers, for Prometheus or as JSON."""
        form = query_choice(req, "format", ("prometheus", "json"), "prometheus")
        measured = orjson.loads(await self._deps.store.metrics(self._deps.tenant))
        measured["process"] = {"pool": self._pool(), "listening": self._deps.hub.listening}
        if form == "json":
            answer(resp, measured)
            return
        resp.content_type = _METRICS_TEXT
        resp.data = prometheus(measured).encode()

    async def on_get_openapi(self, req: Request, resp: Response) -> None:
        """This description."""
        answer_json(resp, self._document)

    async def on_get_docs(self, req: Request, resp: Response) -> None:
        """This description as a page."""
        resp.content_type = MEDIA_HTML
        resp.set_header("Content-Security-Policy", _POLICY)
        resp.data = self._page

    @cached_property
    def _document(self) -> bytes:
        return orjson.dumps(document(self._deps))

    @cached_property
    def _page(self) -> bytes:
        return (files("duragraph.api") / "docs.html").read_bytes()

    @cached_property
    def _needed(self) -> int:
        return max(step.version for step in sqlfiles.migrations())

    async def _schema(self) -> dict[str, Any]:
        """{"installed", "needed", "problem"}: what keeps the database from being used, if anything."""
        needed = self._needed
        try:
            installed = await self._deps.store.schema_version()
        except DuragraphError as error:
            return {"installed": None, "needed": needed, "problem": str(error)}
        problem = None
        if installed != needed:
            problem = f'the schema is at {installed}, this version needs {needed}; run "duragraph migrate"'
        return {"installed": installed, "needed": needed, "problem": problem}

    def _pool(self) -> dict[str, int]:
        stats = self._deps.store.pool.get_stats()
        names = ("pool_size", "pool_available", "pool_min", "pool_max", "requests_waiting")
        return {name.removeprefix("pool_"): stats.get(name, 0) for name in names}


def prometheus(measured: dict[str, Any]) -> str:
    """The measures in Prometheus's text format."""
    lines: list[str] = []

    def gauge(name: str, about: str, samples: list[tuple[dict[str, str], float | None]]) -> None:
        lines.extend([f"# HELP duragraph_{name} {about}", f"# TYPE duragraph_{name} gauge"])
        for labels, value in samples:
            if value is not None:
                shown = ",".join(f'{key}="{_escape(text)}"' for key, text in labels.items())
                lines.append(f"duragraph_{name}{{{shown}}} {value:g}" if shown else f"duragraph_{name} {value:g}")

    graphs, workers, process = measured["graphs"], measured["workers"], measured["process"]
    states = ("ready", "waiting", "scheduled", "running")
    named = [({"graph": one["graph_id"]}, one) for one in graphs]
    gauge("info", "The version of the server.", [({"version": __version__}, 1)])
    gauge(
        "runs",
        "Runs that have not ended, by graph and state.",
        [({**label, "state": state}, one[state]) for label, one in named for state in states],
    )
    gauge(
        "oldest_ready_seconds",
        "Age of the run at the head of a graph's line.",
        [(label, one["oldest_ready_secs"]) for label, one in named],
    )
    gauge("graph_workers", "Live workers of a graph.", [(label, one["workers_alive"]) for label, one in named])
    gauge("workers", "Live workers.", [({}, workers["alive"])])
    gauge("worker_capacity", "Runs that live workers take at once.", [({}, workers["max"])])
    gauge(
        "pool_connections",
        "Database connections of this process.",
        [({"state": state}, process["pool"][state]) for state in ("size", "available", "max")],
    )
    gauge("pool_waiting", "Requests that wait for a connection.", [({}, process["pool"]["requests_waiting"])])
    gauge("listening", "1 when changes are told by LISTEN, 0 when polled for.", [({}, process["listening"])])
    return "\n".join(lines) + "\n"


def _escape(text: str) -> str:
    return text.replace("\\", r"\\").replace('"', r"\"").replace("\n", r"\n")
