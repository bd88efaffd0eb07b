"""How a command speaks: tables and sentences for people, JSON lines for programs, and exit codes for both."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from datetime import timedelta
from typing import Any

import orjson
from rich.console import Console, RenderableType
from rich.markup import escape

from duragraph.errors import DuragraphError

DONE = 0
PROBLEM = 1
MISUSED = 2
UNREACHABLE = 3
INTERRUPTED = 130

# A pipe has no width: what goes through it is not cut.
_WIDTH_OF_A_PIPE = 250

_UNREACHABLE_CODES = frozenset({"database_unreachable", "database_unavailable"})
_STYLES = {
    "success": "green", "running": "cyan", "pending": "yellow", "error": "red", "timeout": "red",
    "interrupted": "magenta", "active": "green", "silent": "red", "draining": "yellow", "stopped": "dim",
}  # fmt: skip


class Output:
    """Where a command's answers go: stdout; what went wrong goes to stderr."""

    def __init__(self, *, as_json: bool) -> None:
        self.as_json = as_json
        self.console = Console(highlight=False, soft_wrap=True, width=_width(sys.stdout.isatty()))

    def give(self, document: object, picture: Callable[[], RenderableType]) -> None:
        """One answer: the document as JSON, or its picture."""
        if self.as_json:
            self.line(document)
        else:
            self.console.print(picture(), soft_wrap=False)

    def line(self, document: object) -> None:
        """One JSON document, on a line of its own."""
        sys.stdout.write(orjson.dumps(document, default=_plain).decode() + "\n")
        sys.stdout.flush()

    def say(self, sentence: str) -> None:
        """A sentence for people only; it may hold rich's markup."""
        if not self.as_json:
            self.console.print(sentence)

    def refuse(self, problem: DuragraphError) -> int:
        """Say on stderr what went wrong and what to do; gives the exit code."""
        complain(problem, as_json=self.as_json)
        return exit_code(problem)


def complain(problem: DuragraphError, *, as_json: bool) -> None:
    """One line on stderr."""
    if as_json:
        error = {"code": problem.code, "message": problem.message, "hint": problem.hint, "field": problem.field}
        sys.stderr.write(orjson.dumps({"error": error}).decode() + "\n")
        return
    said = str(problem).removeprefix("duragraph: ")
    console = Console(stderr=True, soft_wrap=True, highlight=False)
    console.print(f"[bold red]duragraph:[/] {escape(said)}")


def exit_code(problem: DuragraphError) -> int:
    """2 for what was asked wrongly, 3 when there is no database to ask, else 1."""
    if problem.code in _UNREACHABLE_CODES:
        return UNREACHABLE
    return MISUSED if problem.status in (400, 422) else PROBLEM


def status_markup(status: str) -> str:
    """A status in its colour."""
    return f"[{_STYLES.get(status, 'default')}]{escape(status)}[/]"


def span(seconds: float | None) -> str:
    """A length of time as people say it: 0.3 s, 12 s, 5 min, 3 h, 9 d."""
    if seconds is None:
        return ""
    if seconds < 10:
        return f"{max(seconds, 0):.1f} s"
    for limit, size, unit in ((120, 1, "s"), (7200, 60, "min"), (172800, 3600, "h")):
        if seconds < limit:
            return f"{seconds / size:.0f} {unit}"
    return f"{seconds / 86400:.0f} d"


def _plain(value: object) -> Any:
    if isinstance(value, timedelta):
        return value.total_seconds()
    if isinstance(value, bytes):
        return orjson.Fragment(value)
    return str(value)


def _width(terminal: bool) -> int | None:
    return None if terminal or os.environ.get("COLUMNS") else _WIDTH_OF_A_PIPE
