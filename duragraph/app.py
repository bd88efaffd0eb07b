"""`create_app(settings)`: wires a control plane process together and is its ASGI application."""

from __future__ import annotations

import asyncio
import logging
import re
import secrets
import signal
import time
from collections.abc import Awaitable, Callable, MutableMapping
from contextlib import suppress
from importlib import import_module
from types import FrameType
from typing import Any

import falcon
import falcon.asgi
import orjson
from falcon.asgi import Request, Response, WebSocket

from duragraph import claims as claiming
from duragraph import jobs, migrate
from duragraph.api.http import answer
from duragraph.api.stream import Cut
from duragraph.claims import Claims
from duragraph.config import Settings
from duragraph.deps import Deps, Drain, make_batches
from duragraph.errors import DuragraphError
from duragraph.hub import Hub
from duragraph.store import Store
from duragraph.webhooks import Webhooks

log = logging.getLogger("duragraph.http")

Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]

RESOURCES = (
    "assistants",
    "threads",
    "thread_stream",
    "protocol",
    "state",
    "runs",
    "store",
    "crons",
    "workers",
    "mcp",
    "a2a",
    "health",
)
PREFIXES = ("", "/api/v1")

_REQUEST_ID = re.compile(r"[\x21-\x7e]{1,128}")
_EXPOSED = "content-location, location, x-pagination-total, x-pagination-next, x-request-id, retry-after"
_METHODS = "GET, POST, PUT, PATCH, DELETE, OPTIONS"
_TENANT = 1
_WEBSOCKET_CODES = 4000  # and the HTTP status: what clients of the protocol understand
_STOP_PATIENCE = 5.0
_WEBHOOKS_WITHOUT_LISTEN = 1.0


class App:
    """Falcon's application and what it does not give: the raw `receive`, to watch clients, and broken-off answers."""

    def __init__(self, deps: Deps, falcon_app: falcon.asgi.App[Request, Response]) -> None:
        self.deps = deps
        self.falcon = falcon_app
        self.loop: asyncio.AbstractEventLoop
        """The event loop it runs in, once it does."""

    async def __call__(self, scope: Message, receive: Receive, send: Send) -> None:
        if scope["type"] == "http":
            scope["duragraph.receive"] = receive
        elif scope["type"] == "lifespan":
            self.loop = asyncio.get_running_loop()
        # A Cut leaves the answer incomplete on purpose: the server closes the connection, the client asks again.
        with suppress(Cut):
            await self.falcon(scope, receive, send)  # type: ignore[arg-type]  # falcon wants a dict, ASGI a mapping


def create_app(settings: Settings) -> App:
    """A control plane process: an ASGI application that opens its pool when it starts and drains on SIGTERM."""
    store = Store.of(settings)
    hub = Hub(store, settings.listen_url, _TENANT)
    claims = Claims(store)
    webhooks = Webhooks(store, settings)
    deps = Deps(settings, store, hub, claims, make_batches(store, hub, _TENANT), webhooks, Drain(), _TENANT)
    hub.on_ready, hub.on_lost = claims.kick, claims.lost
    claims.look_every = lambda: claiming.LOOK_EVERY if hub.listening else claiming.LOOK_EVERY_WITHOUT_LISTEN
    hub.on_webhooks = webhooks.kick
    webhooks.look_every = lambda: None if hub.listening else _WEBHOOKS_WITHOUT_LISTEN
    deps.drain.when_begun(claims.stop)
    deps.drain.when_begun(webhooks.stop)
    deps.drain.when_begun(hub.stop_readers)
    # The parts of an application that falcon can tell apart only when it runs.
    middleware: list[Any] = [Lifespan(deps), Edge(deps)]
    application = falcon.asgi.App(middleware=middleware)
    application.req_options.strip_url_path_trailing_slash = True
    application.req_options.auto_parse_qs_csv = False
    application.add_error_handler(Exception, _unforeseen)
    application.add_error_handler(falcon.HTTPError, _http_error)
    application.add_error_handler(DuragraphError, _our_error)
    _add_routes(application, deps)
    return App(deps, application)


def from_environment() -> App:
    """For `uvicorn --factory duragraph.app:from_environment`."""
    settings = Settings.from_environment()
    configure_logging(settings)
    return create_app(settings)


def _add_routes(application: falcon.asgi.App[Request, Response], deps: Deps) -> None:
    """Every path at the root and under /api/v1; what several modules say about one path is put together."""
    responders: dict[str, dict[str, Any]] = {}
    for name in RESOURCES:
        for path, resource, suffix in import_module(f"duragraph.api.{name}").routes(deps):
            ending = f"_{suffix}" if suffix else ""
            for method in ("get", "head", "post", "put", "patch", "delete", "websocket"):
                responder = getattr(resource, f"on_{method}{ending}", None)
                if responder is not None:
                    responders.setdefault(path, {}).setdefault(f"on_{method}", responder)
    for path, its in responders.items():
        resource = type("Resource", (), {})()
        if "on_get" in its:
            # The same without the body, which falcon leaves out.
            its.setdefault("on_head", its["on_get"])
        for name, responder in its.items():
            setattr(resource, name, responder)
        for prefix in PREFIXES:
            application.add_route(prefix + path if path != "/" else prefix or "/", resource)


class Lifespan:
    """Start and stop of a process."""

    def __init__(self, deps: Deps) -> None:
        self._deps = deps
        self._tasks: list[asyncio.Task[None]] = []
        self._handlers: dict[signal.Signals, Any] = {}

    async def process_startup(self, scope: Message, event: Message) -> None:
        """Open the pool, refuse a schema that is not this version's, and begin to listen and to hand out runs."""
        deps = self._deps
        await deps.store.open()
        async with deps.store.pool.connection() as connection:
            await migrate.check_async(connection)
        await deps.hub.start()
        self._tasks.append(asyncio.create_task(deps.claims.run()))
        self._tasks.append(asyncio.create_task(deps.webhooks.run()))
        self._tasks.append(asyncio.create_task(jobs.run(deps.settings, deps.store, deps.hub, deps.webhooks)))
        self._catch_signals()
        log.info("started", extra={"listening": deps.hub.listening})

    async def process_shutdown(self, scope: Message, event: Message) -> None:
        """Nothing is in progress any more: close what was opened."""
        self._deps.drain.begin()
        for task in self._tasks:
            task.cancel()
        # Not for ever: with the database gone, the job queue waits minutes for what cannot be said any more.
        await asyncio.wait(self._tasks, timeout=_STOP_PATIENCE)
        for close in (self._deps.webhooks.close, self._deps.hub.close, self._deps.store.close):
            with suppress(TimeoutError):
                await asyncio.wait_for(close(), _STOP_PATIENCE)
        log.info("stopped")

    def _catch_signals(self) -> None:
        """The server waits for open requests before it says `shutdown`: held ones are let go when the signal comes."""
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            before = signal.getsignal(number)

            def caught(
                given: int, frame: FrameType | None, before: Any = before, drain: Drain = self._deps.drain
            ) -> None:
                loop.call_soon_threadsafe(drain.begin)
                if callable(before):
                    before(given, frame)

            # Only the main thread may; elsewhere (tests) whoever runs the server calls drain.begin().
            with suppress(ValueError):
                signal.signal(number, caught)


class Edge:
    """What every request has: an id, a size limit, CORS, and a log line."""

    def __init__(self, deps: Deps) -> None:
        self._deps = deps

    async def process_request(self, req: Request, resp: Response) -> None:
        """Before routing."""
        given = req.get_header("X-Request-ID") or ""
        req.context.request_id = given if _REQUEST_ID.fullmatch(given) else secrets.token_hex(8)
        req.context.max_body_bytes = self._deps.settings.max_body_bytes
        req.context.receive = req.scope["duragraph.receive"]
        req.context.began = time.perf_counter()
        if req.method == "OPTIONS" and req.get_header("Access-Control-Request-Method"):
            _preflight(req, resp)

    async def process_response(self, req: Request, resp: Response, resource: object, req_succeeded: bool) -> None:
        """After the responder, before the answer is sent."""
        resp.set_header("X-Request-ID", req.context.request_id)
        resp.set_header("Access-Control-Allow-Origin", "*")
        resp.set_header("Access-Control-Expose-Headers", _EXPOSED)
        if self._deps.drain.begun:
            resp.set_header("Connection", "close")
        if resp.status_code in (202, 204) and _reads_every_answer(req):
            answer(resp, {})
        log.info(
            "request",
            extra={
                "method": req.method,
                "path": req.path,
                "status": resp.status_code,
                "ms": round((time.perf_counter() - req.context.began) * 1000, 1),
                "request_id": req.context.request_id,
            },
        )


def _preflight(req: Request, resp: Response) -> None:
    resp.status = falcon.HTTP_204
    resp.set_header("Access-Control-Allow-Methods", _METHODS)
    resp.set_header("Access-Control-Allow-Headers", req.get_header("Access-Control-Request-Headers") or "*")
    resp.set_header("Access-Control-Max-Age", "600")
    if req.get_header("Access-Control-Request-Private-Network"):
        resp.set_header("Access-Control-Allow-Private-Network", "true")
    resp.complete = True


def _reads_every_answer(req: Request) -> bool:
    """The published SDK's client parses every body as JSON. It is known by its user agent and by the type it sends even
    without a body, as others do not; where it has one, by its path."""
    return (
        (req.path.startswith("/api/v1/store/") or (req.method in ("DELETE", "POST") and not req.content_length))
        and (req.user_agent or "").startswith("python-httpx/")
        and (req.content_type or "").startswith("application/json")
    )


async def _our_error(
    req: Request, resp: Response, error: DuragraphError, params: dict[str, Any], ws: WebSocket | None = None
) -> None:
    if ws is not None:
        await ws.close(_WEBSOCKET_CODES + error.status, error.message)
    else:
        _answer_error(resp, error)


async def _http_error(
    req: Request, resp: Response, error: falcon.HTTPError, params: dict[str, Any], ws: WebSocket | None = None
) -> None:
    if ws is not None:
        await ws.close(_WEBSOCKET_CODES + error.status_code)
        return
    title = error.title or "Error"
    code = re.sub(r"\W+", "_", re.sub(r"^\d+\s+", "", title)).strip("_").lower()
    resp.set_headers(error.headers or {})
    detail = error.description or re.sub(r"^\d+\s+", "", title)
    answer(resp, {"detail": detail, "code": code}, falcon.code_to_http_status(error.status))


async def _unforeseen(
    req: Request, resp: Response, error: Exception, params: dict[str, Any], ws: WebSocket | None = None
) -> None:
    log.error("request failed", exc_info=error, extra={"path": req.path, "request_id": req.context.get("request_id")})
    if ws is not None:
        await ws.close(_WEBSOCKET_CODES + 500)
        return
    _answer_error(resp, DuragraphError("Internal Server Error", hint=f"the log has it under {req.context.request_id}"))


def _answer_error(resp: Response, error: DuragraphError) -> None:
    message, hint = error.message, error.hint
    body = {
        "detail": f"{message}{'' if message.endswith(('.', '!', '?')) else ';'} {hint}" if hint else message,
        "code": error.code,
        "field": error.field,
        "hint": hint,
    }
    if error.retry_after is not None:
        resp.set_header("Retry-After", str(max(1, round(error.retry_after))))
    # A stream may already be prepared: the error takes its place.
    resp.stream = None
    kept = {name: value for name, value in body.items() if value is not None}
    answer(resp, kept, falcon.code_to_http_status(error.status))


_USUAL = frozenset(vars(logging.makeLogRecord({}))) | {"message", "asctime", "taskName", "color_message"}


class Line(logging.Formatter):
    """One line an event: its name, and its fields as key=value or as JSON."""

    def __init__(self, *, as_json: bool) -> None:
        super().__init__()
        self._as_json = as_json

    def format(self, record: logging.LogRecord) -> str:
        """One line; a traceback follows it in text and is a field in JSON."""
        at = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(record.created)) + f".{int(record.msecs):03d}Z"
        fields = {name: value for name, value in vars(record).items() if name not in _USUAL and value is not None}
        trace = self.formatException(record.exc_info) if record.exc_info else None
        if self._as_json:
            known = {"at": at, "level": record.levelname.lower(), "logger": record.name, "event": record.getMessage()}
            return orjson.dumps({**known, **fields, **({"trace": trace} if trace else {})}, default=str).decode()
        said = "".join(f" {name}={value}" for name, value in fields.items())
        return f"{at} {record.levelname.lower():7} {record.getMessage()}{said}" + (f"\n{trace}" if trace else "")


def configure_logging(settings: Settings) -> None:
    """Send the process's log to stderr."""
    handler = logging.StreamHandler()
    handler.setFormatter(Line(as_json=settings.log_json))
    logging.basicConfig(level=settings.log_level.upper(), handlers=[handler], force=True)
    for noisy in ("procrastinate", "psycopg.pool", "uvicorn.access"):
        logging.getLogger(noisy).setLevel(logging.WARNING)
