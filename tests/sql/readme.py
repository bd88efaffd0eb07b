"""Runs the psql sessions of sql/README.md; `python -m tests.sql.readme` writes what they answer today into it."""

from __future__ import annotations

import re
import sys
from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory

from duragraph import sqlfiles
from tests import postgres
from tests.postgres import Server

README = sqlfiles.folder() / "README.md"

_SESSION = re.compile(r"(?<=^```psql\n).*?(?=^```$)", re.MULTILINE | re.DOTALL)
_INPUT = re.compile(r"^=> .*(?:\n-> .*)*", re.MULTILINE)
_MARK = "@@ {} @@"
# What differs from one run to the next, and with it the widths of columns.
_CHANGING = [
    (re.compile(r"\b[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}\b"), "<id>"),
    (re.compile(r"\d{4}-\d\d-\d\d[T ]\d\d:\d\d:\d\d(?:\.\d+)?(?:\+\d\d(?::\d\d)?)?"), "<time>"),
    (re.compile(r"\b\d\d:\d\d:\d\d(?:\.\d+)?"), "<duration>"),
    (re.compile(r"-{3,}"), "---"),
    (re.compile(r"[ \t]+"), " "),
]


def inputs(text: str) -> list[str]:
    """What is typed, over all sessions, without the prompts."""
    typed = [found for session in _SESSION.findall(text) for found in _INPUT.findall(session)]
    return ["\n".join(line[3:] for line in one.splitlines()) for one in typed]


def outputs(server: Server, database: str, typed: list[str], folder: Path) -> list[str]:
    """What psql answers to each input, in one session."""
    script = folder / "session.sql"
    lines = [f"\\echo {_MARK.format(n)}\n{one}\n" for n, one in enumerate(typed)]
    script.write_text("set timezone = 'UTC';\n" + "".join(lines))
    done = server.run("psql", database, "-X", "-q", "-v", "ON_ERROR_STOP=1", "-f", script)
    parts = re.split(r"^@@ \d+ @@\n", done.stdout, flags=re.MULTILINE)[1:]
    assert len(parts) == len(typed), done.stdout
    return ["\n".join(line.rstrip() for line in part.strip("\n").splitlines()) for part in parts]


def rendered(text: str, answers: list[str]) -> str:
    """The README with these answers."""
    following: Iterator[str] = iter(answers)

    def session(found: re.Match[str]) -> str:
        shown = [one + (f"\n{answer}\n" if (answer := next(following)) else "") for one in _INPUT.findall(found[0])]
        return "\n".join(shown).rstrip("\n") + "\n"

    return _SESSION.sub(session, text)


def steady(text: str) -> str:
    """A text without what differs from one run to the next."""
    for pattern, word in _CHANGING:
        text = pattern.sub(word, text)
    return "\n".join(line.rstrip() for line in text.splitlines())


def main() -> int:
    """Write the answers into the README."""
    text = README.read_text()
    with postgres.server() as server, server.database(server.template) as name, TemporaryDirectory() as folder:
        answers = outputs(server, name, inputs(text), Path(folder))
    README.write_text(rendered(text, answers))
    return 0


if __name__ == "__main__":
    sys.exit(main())
