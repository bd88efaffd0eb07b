"""`duragraph serve`: the control plane in production, in one or many processes that share one port."""

from __future__ import annotations

import argparse
import errno
import logging
import os
import signal
import socket
from types import FrameType

from duragraph import migrate
from duragraph.config import Settings
from duragraph.database import Database
from duragraph.errors import Invalid
from duragraph.output import DONE, UNREACHABLE, Output

log = logging.getLogger("duragraph.serve")

_DRAIN_SECONDS = 30
# Longer than the idle time of the clients' and of most load balancers' connections: they, not we, close them.
_KEEP_ALIVE_SECONDS = 75


def run(options: argparse.Namespace, output: Output) -> int:
    """Serve until SIGTERM or Ctrl-C; what is in progress then is finished."""
    if output.as_json:
        os.environ["DURAGRAPH_LOG_JSON"] = "true"
    settings = Settings.from_environment(host=options.host, port=options.port)
    found = Database(settings, "DATABASE_URL")
    if options.migrate:
        found.migrate()
    migrate.check_version(found.status().installed)
    return _serve(settings, open_port(settings.host, settings.port), options.workers)


def open_port(host: str, port: int) -> socket.socket:
    """A listening socket. Raises `Invalid`, saying what to do, when there is none to be had."""
    try:
        family, _, _, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)[0]
    except (OSError, UnicodeError):
        raise Invalid(f'"{host}" is no address of this machine', field="host", hint="try --host 127.0.0.1") from None
    try:
        return socket.create_server(address, family=family, backlog=2048)
    except OSError as problem:
        raise _no_port(host, port, problem) from None


def _no_port(host: str, port: int, problem: OSError) -> Invalid:
    if problem.errno == errno.EADDRINUSE:
        return Invalid(f"port {port} is taken", field="port", hint="stop what uses it, or choose another with --port")
    if problem.errno == errno.EACCES:
        return Invalid(f"port {port} is not for ordinary users", field="port", hint="choose one above 1023 with --port")
    return Invalid(f"cannot listen on {host}, port {port}: {problem.strerror}", hint="choose with --host and --port")


def _serve(settings: Settings, listening: socket.socket, processes: int) -> int:
    # Here and not above: the other commands need neither.
    import uvicorn
    from uvicorn.supervisors import Multiprocess

    from duragraph.app import configure_logging

    configure_logging(settings)
    config = uvicorn.Config(
        "duragraph.app:from_environment",
        factory=True,
        workers=processes,
        log_config=None,
        access_log=False,
        server_header=False,
        timeout_keep_alive=_KEEP_ALIVE_SECONDS,
        timeout_graceful_shutdown=_DRAIN_SECONDS,
    )
    # uvicorn sends itself the signal once more when all is done; that is no way to die for an orderly stop.
    signal.signal(signal.SIGTERM, _leave)
    signal.signal(signal.SIGINT, _leave)
    host, port = listening.getsockname()[:2]
    log.info("listening", extra={"host": host, "port": port, "processes": processes})
    if processes > 1:
        many = Multiprocess(config, sockets=[listening])
        many.run()
        return UNREACHABLE if any(process.exitcode == UNREACHABLE for process in many.processes) else DONE
    server = uvicorn.Server(config)
    server.run(sockets=[listening])
    return DONE if server.started else UNREACHABLE


def _leave(number: int, frame: FrameType | None) -> None:
    raise SystemExit(DONE)
