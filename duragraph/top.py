"""`duragraph top`: the queue, the workers and what runs, live."""

from __future__ import annotations

import argparse
import sys
import time
from typing import Any

from rich.console import Group, RenderableType
from rich.live import Live
from rich.markup import escape
from rich.table import Table
from rich.text import Text

from duragraph import database
from duragraph.desk import Desk
from duragraph.output import DONE, Output, span, status_markup
from duragraph.runs import runs_table

_SHOWN = 20


def run(options: argparse.Namespace, output: Output) -> int:
    """Show it, once or until Ctrl-C."""
    found = database.find(options.data)
    with found.desk() as desk:
        if options.once or not (output.as_json or sys.stdout.isatty()):
            seen = _look(desk)
            output.give(seen, lambda: _picture(seen, found.name))
        elif output.as_json:
            while True:
                output.line(_look(desk))
                time.sleep(options.interval)
        else:
            _live(desk, found.name, options.interval, output)
    return DONE


def _live(desk: Desk, name: str, interval: float, output: Output) -> None:
    with Live(_picture(_look(desk), name), console=output.console, screen=True, auto_refresh=False) as live:
        while True:
            time.sleep(interval)
            live.update(_picture(_look(desk), name), refresh=True)


def _look(desk: Desk) -> dict[str, Any]:
    return {
        "queue": desk.queue_depth(),
        "workers": desk.worker_health(),
        "running": desk.list_runs(status="running", graph_id=None, thread_id=None, limit=_SHOWN),
    }


def _picture(seen: dict[str, Any], name: str) -> RenderableType:
    title = Text.assemble(("DuraGraph ", "bold"), (f"{name}, {time.strftime('%H:%M:%S')}", "dim"))
    return Group(title, "", _queue(seen["queue"]), "", _workers(seen["workers"]), "", _running(seen))


def _queue(rows: list[dict[str, Any]]) -> RenderableType:
    if not rows:
        return Text("no graph is registered: start a worker", style="dim")
    table = Table(box=None, pad_edge=False, header_style="bold")
    table.add_column("graph", no_wrap=True)
    for column in ("ready", "waiting", "scheduled", "running", "oldest", "workers", "capacity"):
        table.add_column(column, justify="right", no_wrap=True)
    for row in rows:
        counts = (str(row[name]) for name in ("ready", "waiting", "scheduled", "running"))
        alone = row["ready"] and not row["workers_alive"]
        alive = f"[red]{row['workers_alive']}[/]" if alone else str(row["workers_alive"])
        table.add_row(escape(row["graph_id"]), *counts, _span(row["oldest_age"]), alive, str(row["capacity"]))
    return table


def _workers(rows: list[dict[str, Any]]) -> RenderableType:
    if not rows:
        return Text("no worker is here", style="dim")
    table = Table(box=None, pad_edge=False, header_style="bold")
    for column in ("worker", "status", "running", "last beat", "oldest run"):
        table.add_column(column, no_wrap=True)
    table.add_column("graphs", overflow="ellipsis", no_wrap=True)
    for row in rows:
        table.add_row(
            escape(row["worker_id"]), status_markup(row["status"]), f"{row['running']}/{row['capacity']}",
            _span(row["last_beat"]), _span(row["oldest_lease"]), escape(", ".join(row["graphs"])),
        )  # fmt: skip
    return table


def _running(seen: dict[str, Any]) -> RenderableType:
    if not seen["running"]:
        return Text("nothing runs", style="dim")
    return runs_table(seen["running"])


def _span(length: Any) -> str:
    return span(length.total_seconds() if length is not None else None)
