"""The servers of the benches: throw-away, durable, and set up as a small server of its own would be."""

from __future__ import annotations

import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import psycopg

from duragraph.migrate import migrate
from duragraph.postgres import bin_dirs, throwaway
from tests.postgres import Server

_SETTINGS = {
    "shared_buffers": "1GB",
    "max_connections": "200",
    "max_wal_size": "4GB",
    "checkpoint_timeout": "15min",
    "shared_preload_libraries": "pg_stat_statements",
}


def server_dirs() -> list[Path]:
    """The preferred PostgreSQL, and version 15 where it is installed."""
    fifteen = [place for place in bin_dirs() if place.parent.name == "15"]
    return list(dict.fromkeys([*bin_dirs()[:1], *fifteen]))


@contextmanager
def bench_server(bin_dir: Path | str) -> Iterator[Server]:
    """A server with fsync on and a migrated template."""
    with throwaway(bin_dir, durable=True) as started:
        with psycopg.connect(started.dsn_of("postgres"), autocommit=True) as connection:
            for name, value in _SETTINGS.items():
                connection.execute(f"alter system set {name} = '{value}'".encode())
        started.stop()
        started.start()
        server = Server(started.dsn_of("postgres"), str(started.bin_dir), f"bench_{secrets.token_hex(3)}")
        server.create(server.template, "template0")
        migrate(server.dsn(server.template))
        yield server


def server_version(server: Server) -> str:
    """As the server says it: 18.0."""
    with psycopg.connect(server.admin_dsn) as connection:
        row = connection.execute("show server_version").fetchone()
    assert row is not None, "show gives a row"
    return str(row[0]).split()[0]
