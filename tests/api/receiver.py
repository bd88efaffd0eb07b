"""A receiver of webhooks: a real HTTP server that answers as the test says, and keeps what came."""

from __future__ import annotations

import json
import ssl
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

from tests.waiting import wait_for_async

Answer = Callable[[BaseHTTPRequestHandler], None]


@dataclass
class Call:
    """One request."""

    path: str
    headers: dict[str, str]
    raw: bytes

    @property
    def body(self) -> dict[str, Any]:
        """As JSON."""
        parsed: dict[str, Any] = json.loads(self.raw)
        return parsed


@dataclass
class Receiver:
    """Where it listens, and what it got."""

    port: int
    calls: list[Call] = field(default_factory=list)
    connections: list[Any] = field(default_factory=list)
    answers: list[Answer] = field(default_factory=list)
    """How to answer the first calls; the others get 204."""
    released: threading.Event = field(default_factory=threading.Event)
    """Set when the test is over: an answer that hangs waits for it."""

    def url(self, path: str = "/hook", host: str = "127.0.0.1") -> str:
        """An address of it."""
        return f"http://{host}:{self.port}{path}"

    async def got(self, count: int, timeout: float = 10) -> list[Call]:
        """The calls, when there are so many."""

        async def probe() -> bool:
            return len(self.calls) >= count

        await wait_for_async(probe, timeout, what=f"{count} webhook calls")
        return self.calls


def status(code: int, body: bytes = b"", **headers: str) -> Answer:
    """Answer at once."""

    def answer(handler: BaseHTTPRequestHandler) -> None:
        handler.send_response(code)
        for name, value in headers.items():
            handler.send_header(name.replace("_", "-"), value)
        handler.send_header("Content-Length", str(len(body)))
        handler.end_headers()
        handler.wfile.write(body)

    return answer


@contextmanager
def receiver(certificate: Path | None = None) -> Iterator[Receiver]:
    """A receiver on 127.0.0.1; with a certificate (and its key in one file) over TLS."""

    class Handler(BaseHTTPRequestHandler):
        def setup(self) -> None:
            got.connections.append(self.client_address)
            super().setup()

        def do_POST(self) -> None:
            length = int(self.headers.get("Content-Length", 0))
            call = Call(self.path, {k.lower(): v for k, v in self.headers.items()}, self.rfile.read(length))
            got.calls.append(call)
            answer = got.answers[len(got.calls) - 1] if len(got.calls) <= len(got.answers) else status(204)
            with suppress(OSError):  # the client may hang up
                answer(self)

        def do_GET(self) -> None:
            self.do_POST()

        def log_message(self, format: str, *args: object) -> None:
            """Say nothing."""

    class Server(ThreadingHTTPServer):
        daemon_threads = True
        request_queue_size = 128

        def handle_error(self, request: Any, client_address: Any) -> None:
            """A client that hung up is no error of ours."""

    server = Server(("127.0.0.1", 0), Handler)
    if certificate:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(certificate)
        server.socket = context.wrap_socket(server.socket, server_side=True)
    got = Receiver(server.server_address[1])
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05}, name="receiver")
    thread.start()
    try:
        yield got
    finally:
        got.released.set()
        server.shutdown()
        thread.join(10)
        server.server_close()
