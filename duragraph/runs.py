"""`duragraph runs`: list, show, tail, cancel and retry runs, straight in the database."""

from __future__ import annotations

import argparse
from collections.abc import Iterable
from dataclasses import asdict
from typing import Any
from uuid import UUID

import orjson
from rich.console import Group, RenderableType
from rich.markup import escape
from rich.table import Table
from rich.text import Text

from duragraph import database
from duragraph.desk import Desk, Ordered
from duragraph.hub import RUNS, TERMINAL, Frame, parse_frames
from duragraph.output import DONE, PROBLEM, Output, span, status_markup
from duragraph.store import Session

_LOOK_EVERY = 1.0
_BATCH = 500


def list_runs(options: argparse.Namespace, output: Output) -> int:
    """The newest runs."""
    with database.find(options.data).desk() as desk:
        runs = desk.list_runs(
            status=options.status, graph_id=options.graph, thread_id=options.thread, limit=options.limit
        )
    if runs or output.as_json:
        output.give(runs, lambda: runs_table(runs))
    else:
        output.say("no run is like that")
    return DONE


def runs_table(runs: Iterable[dict[str, Any]]) -> Table:
    """One line a run."""
    table = Table(box=None, pad_edge=False, header_style="bold")
    for column in ("run", "status", "graph", "attempt", "age", "took"):
        table.add_column(column, no_wrap=True)
    for column in ("last step", "worker", "reason"):
        table.add_column(column, overflow="ellipsis", no_wrap=True)
    for run in runs:
        table.add_row(
            str(run["run_id"]), status_markup(run["status"]), escape(run["graph_id"] or ""),
            f"{run['attempt']}/{run['max_attempts']}", _span(run["age"]), _span(run["took"] or run["lease_age"]),
            escape(run["last_step"] or ""), escape(run["worker_id"] or ""), escape(run["reason"] or ""),
        )  # fmt: skip
    return table


def show_run(options: argparse.Namespace, output: Output) -> int:
    """One run: how it is, why, what it completed, and what came out."""
    with database.find(options.data).desk() as desk:
        run = desk.find_run(options.run)
        ledger = desk.run_ledger(options.run)
        answer = desk.run_output(options.run)
    output.give({"run": run, "ledger": ledger, "output": answer["output"]}, lambda: _picture(run, ledger, answer))
    return DONE


def _picture(run: dict[str, Any], ledger: list[dict[str, Any]], answer: dict[str, Any]) -> RenderableType:
    facts = Table.grid(padding=(0, 2))
    facts.add_column(style="bold", no_wrap=True)
    facts.add_column(overflow="fold")
    facts.add_row("run", str(run["run_id"]))
    facts.add_row("status", status_markup(run["status"]))
    facts.add_row("why", escape(run["why"]))
    facts.add_row("graph", escape(run["graph_id"] or ""))
    facts.add_row("thread", str(run["thread_id"] or "none: stateless"))
    facts.add_row("attempt", f"{run['attempt']} of {run['max_attempts']}")
    facts.add_row("created", f"{run['created_at']:%Y-%m-%d %H:%M:%S %Z}, {_span(run['age'])} ago")
    parts: list[RenderableType] = [facts]
    if ledger:
        parts += ["", _ledger_table(ledger)]
    if answer["done"]:
        output = orjson.dumps(answer["output"], option=orjson.OPT_INDENT_2).decode()
        parts += ["", Text("output", style="bold"), Text(output)]
    return Group(*parts)


def _ledger_table(ledger: list[dict[str, Any]]) -> Table:
    table = Table(box=None, pad_edge=False, header_style="bold")
    for column in ("#", "completed", "kind", "took", "attempt", "worker"):
        table.add_column(column, no_wrap=True)
    for step in ledger:
        what = step["what"] if step["step_key"] is None else f"  {step['what']}"
        took, attempt = _span(step["took"]), str(step["attempt"])
        table.add_row(
            str(step["n"]), escape(what), escape(step["kind"]), took, attempt, escape(step["worker_id"] or "")
        )
    return table


def tail_run(options: argparse.Namespace, output: Output) -> int:
    """The events of a run as they come, to its end; 0 when it succeeds."""
    found = database.find(options.data)
    with found.desk() as desk:
        ear = Session(found.settings.listen_url)
        try:
            # Listen first, read second: what comes between is read, what comes later is heard.
            ear.listen(RUNS)
            status = _follow(desk, ear, options.run, options.after, output)
        finally:
            ear.close()
    if output.as_json:
        output.line({"status": status})
    else:
        output.say(f"[dim]--[/] {status_markup(status)}")
    return DONE if status == "success" else PROBLEM


def _follow(desk: Desk, ear: Session, run_id: UUID, after: int, output: Output) -> str:
    """The terminal status, once all events are shown."""
    words = [run_id.hex, str(run_id)]
    while True:
        row = desk.read_events(run_id, after, _BATCH)
        frames = parse_frames(row.frames)
        for frame in frames:
            _show(frame, output)
            after = frame.seq
        if frames and after < row.last_seq:
            continue
        if row.status in TERMINAL:
            return row.status
        ear.hears(words, _LOOK_EVERY)


def _show(frame: Frame, output: Output) -> None:
    if output.as_json:
        output.line({"seq": frame.seq, "event": frame.event, "data": orjson.Fragment(frame.data)})
    else:
        output.console.print(
            Text.assemble((f"{frame.seq:>5} ", "dim"), (f"{frame.event:<10} ", "cyan"), frame.data.decode())
        )


def cancel_runs(options: argparse.Namespace, output: Output) -> int:
    """End runs now."""
    with database.find(options.data).desk() as desk:
        return _answer([desk.cancel_run(run, options.reason) for run in options.runs], output)


def retry_runs(options: argparse.Namespace, output: Output) -> int:
    """Queue failed or cancelled runs again."""
    with database.find(options.data).desk() as desk:
        return _answer([desk.retry_run(run) for run in options.runs], output)


def _answer(orders: list[Ordered], output: Output) -> int:
    output.give(
        [asdict(order) for order in orders],
        lambda: Group(*(Text(order.message, style="" if order.done else "red") for order in orders)),
    )
    return DONE if all(order.done for order in orders) else PROBLEM


def _span(length: Any) -> str:
    return span(length.total_seconds() if length is not None else None)
