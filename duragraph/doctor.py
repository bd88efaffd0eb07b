"""`duragraph doctor`: looks at everything a control plane stands on, and says of each what to do."""

from __future__ import annotations

import argparse
import secrets
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from typing import Any

from rich.markup import escape
from rich.table import Table

from duragraph import database, migrate
from duragraph.database import Database
from duragraph.desk import Examination
from duragraph.errors import DuragraphError
from duragraph.output import DONE, PROBLEM, Output, exit_code, span
from duragraph.store import Session

OK, WARN, FAIL = "ok", "warn", "fail"

_OLDEST = 15
_ECHO_PATIENCE = 2.0
_CHANNEL = "duragraph_doctor"
_SKEW = 1.0
_PROCESS_EXTRA = 4
"""Connections of a process beside its pool: two of the hub, two of the jobs."""
_MARKS = {OK: "[green]ok[/]", WARN: "[yellow]warn[/]", FAIL: "[bold red]fail[/]"}


@dataclass(frozen=True, slots=True)
class Finding:
    """One line: what was looked at, how it is, and what to do about it."""

    check: str
    level: str
    message: str
    hint: str | None = None


def run(options: argparse.Namespace, output: Output) -> int:
    """Examine, and tell; 0 when nothing failed."""
    try:
        found = database.find(options.data)
        findings = list(_examine(found, options))
    except DuragraphError as problem:
        _tell([Finding("database", FAIL, problem.message, problem.hint)], output)
        return exit_code(problem)
    _tell(findings, output)
    return PROBLEM if any(finding.level == FAIL for finding in findings) else DONE


def _tell(findings: list[Finding], output: Output) -> None:
    ok = all(finding.level != FAIL for finding in findings)
    output.give({"ok": ok, "checks": [asdict(finding) for finding in findings]}, lambda: _picture(findings))
    failed, warned = (sum(finding.level == level for finding in findings) for level in (FAIL, WARN))
    output.say(f"\n{len(findings)} checks: {failed} failed, {warned} to look at")


def _picture(findings: list[Finding]) -> Table:
    table = Table(box=None, show_header=False, pad_edge=False)
    table.add_column(no_wrap=True)
    table.add_column(style="bold", no_wrap=True)
    table.add_column(overflow="fold")
    for finding in findings:
        hint = f"\n[dim]->[/] {escape(finding.hint)}" if finding.hint else ""
        table.add_row(_MARKS[finding.level], finding.check, escape(finding.message) + hint)
    return table


def _examine(found: Database, options: argparse.Namespace) -> Iterator[Finding]:
    with Examination(found.dsn) as examination:
        condition = examination.condition()
        processes: int = options.processes or max(1, condition["processes"])
        status = found.status()
        yield version(condition)
        if not condition["standby"]:
            yield schema(status.installed, status.needed)
        yield listen(found, examination)
        yield connections(condition, found.settings.pool_max, processes)
        yield clock(*_clocks(examination))
        yield from durability(condition)
        yield vacuum(condition)
        yield snapshots(examination.snapshots(options.snapshot_seconds), condition["sees_all"])
        if status.installed == status.needed:
            yield partitions(examination.partitions())


def version(condition: dict[str, Any]) -> Finding:
    """PostgreSQL 15 or newer, the primary, in UTF-8."""
    number, name = condition["version_number"], f"PostgreSQL {condition['version']}"
    if number < _OLDEST * 10000:
        return Finding("postgresql", FAIL, f"{name} is too old", f"upgrade to PostgreSQL {_OLDEST} or newer")
    if condition["standby"]:
        hint = "let DATABASE_URL lead to the primary: add target_session_attrs=read-write and all hosts"
        return Finding("postgresql", FAIL, f"{name}, a standby: nothing can be written", hint)
    if condition["encoding"] != "UTF8":
        hint = "make a database with: create database duragraph encoding 'UTF8' template template0"
        return Finding("postgresql", FAIL, f"{name}, a database in {condition['encoding']}", hint)
    return Finding("postgresql", OK, name)


def schema(installed: int, needed: int) -> Finding:
    """The schema that this version needs."""
    try:
        migrate.check_version(installed)
    except DuragraphError as problem:
        return Finding("migrations", FAIL, problem.message.removeprefix("duragraph: "), problem.hint)
    return Finding("migrations", OK, f"the schema is at {installed}, as needed")


def listen(found: Database, examination: Examination) -> Finding:
    """Whether a NOTIFY arrives: a pooler in transaction mode loses LISTEN without a word."""
    own = found.settings.listen_url != found.dsn
    name = "the database of DURAGRAPH_LISTEN_URL" if own else "the database"
    word = secrets.token_hex(8)
    try:
        session = Session(found.settings.listen_url, name)
        try:
            session.listen(_CHANNEL)
            examination.notify(_CHANNEL, word)
            heard = session.hears([word], _ECHO_PATIENCE)
        finally:
            session.close()
    except DuragraphError as problem:
        return Finding("listen", FAIL, problem.message, "set DURAGRAPH_LISTEN_URL to a direct connection")
    if heard:
        return Finding("listen", OK, "a NOTIFY arrives")
    if own:
        hint = "set DURAGRAPH_LISTEN_URL to a direct connection to the same database as DATABASE_URL"
    else:
        hint = "DATABASE_URL seems to be a pooler in transaction mode: set DURAGRAPH_LISTEN_URL to a direct connection"
    return Finding("listen", WARN, "a NOTIFY does not arrive: everything works, at the pace of one poll a second", hint)


def connections(condition: dict[str, Any], pool_max: int, processes: int) -> Finding:
    """Whether max_connections has room for every process's pool."""
    each = pool_max + _PROCESS_EXTRA
    room = condition["max_connections"] - condition["reserved"]
    need = processes * each
    message = (
        f"{processes} process{'es' if processes > 1 else ''} x {each} (a pool of {pool_max} and {_PROCESS_EXTRA}) "
        f"= {need} of {room} connections; others hold {condition['others']}"
    )
    hint = "lower DURAGRAPH_POOL_MAX or the number of processes, raise max_connections, or put a PgBouncer between"
    if need > room:
        return Finding("connections", FAIL, message, hint)
    return Finding("connections", *((WARN, message, hint) if need + condition["others"] > room else (OK, message)))


def _clocks(examination: Examination) -> tuple[float, float]:
    """(seconds the database is ahead of here, seconds the question took): the best of three."""
    tries = []
    for _ in range(3):
        before = datetime.now(UTC)
        theirs = examination.clock()
        took = (datetime.now(UTC) - before).total_seconds()
        tries.append((took, (theirs - before).total_seconds() - took / 2))
    took, ahead = min(tries)
    return ahead, took


def clock(ahead: float, took: float) -> Finding:
    """Whether this machine and the database agree on the time."""
    if abs(ahead) - took / 2 <= _SKEW:
        return Finding("clock", OK, f"{abs(ahead):.3f} s from the database's, measured to {took / 2:.3f} s")
    message = f"the database's clock is {abs(ahead):.1f} s {'ahead of' if ahead > 0 else 'behind'} this machine's"
    hint = (
        "run NTP on both; leases use the database's clock alone and hold, logs and delayed runs go by different times"
    )
    return Finding("clock", WARN, message, hint)


def durability(condition: dict[str, Any]) -> Iterator[Finding]:
    """Whether what was acknowledged survives a crash."""
    lost = {
        "fsync": "a crash of the machine can destroy the database",
        "full_page_writes": "a crash of the machine can destroy pages",
        "synchronous_commit": "a crash of the server can lose steps that were acknowledged, and repeat them",
    }
    for name, loss in lost.items():
        if condition[name] != "off":
            yield Finding(name, OK, str(condition[name]))
        elif name == "synchronous_commit":
            yield Finding(name, FAIL, f"off: {loss}", _set(name, "on") + ", and see the role's and the database's own")
        else:
            yield Finding(name, FAIL, f"off: {loss}", _set(name, "on"))


def vacuum(condition: dict[str, Any]) -> Finding:
    """Whether autovacuum runs: the queue's tables live from it."""
    for name in ("autovacuum", "track_counts"):
        if condition[name] == "off":
            return Finding("autovacuum", FAIL, f"{name} is off: the queue's tables grow without end", _set(name, "on"))
    return Finding("autovacuum", OK, "on")


def _set(name: str, value: str) -> str:
    return f"alter system set {name} = {value}; select pg_reload_conf()"


def snapshots(held: list[dict[str, Any]], sees_all: bool) -> Finding:
    """Whether something keeps vacuum from removing what the queue has done with."""
    if not held:
        message = "none" if sees_all else "none of this role's; for the others: grant pg_read_all_stats"
        return Finding("long snapshots", OK if sees_all else WARN, message)
    first = held[0]
    age = f", {span(first['age'].total_seconds())} old" if first["age"] is not None else ""
    more = f", and {len(held) - 1} more" if len(held) > 1 else ""
    message = f"{first['holder']}{age}{more}: vacuum removes nothing newer, and claims get slower"
    return Finding("long snapshots", WARN, message, f"end it: {first['remedy']}")


def partitions(found: dict[str, Any]) -> Finding:
    """Whether the weekly partitions of events are made ahead and dropped behind."""
    told: list[tuple[Callable[[], bool], str, str]] = [
        (
            lambda: not (found["this_week"] and found["next_week"]),
            "the partition of this week or the next is missing",
            'nobody does the periodic duties: start "duragraph serve", or select duragraph.maintain_partitions()',
        ),
        (
            lambda: bool(found["past"]),
            f"{found['past']} are older than what is kept",
            'nobody does the periodic duties: start "duragraph serve", or select duragraph.sweep_retention()',
        ),
        (
            lambda: bool(found["strays"]),
            "events_default holds events, which retention cannot drop",
            "delete from duragraph.events_default once their runs are of no interest",
        ),
    ]
    for applies, message, hint in told:
        if applies():
            return Finding("partitions", WARN, message, hint)
    return Finding("partitions", OK, "made ahead, none too old")
