"""The `duragraph` command line: reads the arguments, calls the command, and turns what went wrong into one line."""

from __future__ import annotations

import argparse
import os
import sys
import traceback
from collections.abc import Callable, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import NoReturn
from uuid import UUID

from duragraph import __version__, database, dev, doctor, runs, serve, top
from duragraph.errors import DuragraphError
from duragraph.output import DONE, INTERRUPTED, MISUSED, PROBLEM, Output, complain
from duragraph.postgres import DEFAULT_DATA_DIR

Command = Callable[[argparse.Namespace, Output], int]

_EPILOG = """\
exit codes:
  0    done, and nothing is wrong
  1    a problem was found: a check failed, a run did not succeed, an order could not be carried out
  2    the command was not understood, or cannot be carried out as it was asked
  3    the database cannot be reached
  130  stopped with Ctrl-C

The database is the one of DATABASE_URL; without it, the one that "duragraph dev" runs in this folder.
With --json every answer is JSON on stdout, one document a line, and an error is JSON on stderr.
"""
_STATUSES = ("pending", "running", "success", "error", "timeout", "interrupted")


def main(arguments: Sequence[str] | None = None) -> int:
    """The entry point; gives the exit code."""
    # An address where nobody answers is no reason to wait for minutes.
    os.environ.setdefault("PGCONNECT_TIMEOUT", "10")
    options = _parser().parse_args(arguments)
    output = Output(as_json=options.json)
    command: Command = options.command
    try:
        return command(options, output)
    except DuragraphError as problem:
        return output.refuse(problem)
    except KeyboardInterrupt:
        return INTERRUPTED
    except BrokenPipeError:
        # Whoever read us has gone, as `| head` does; Python would complain once more while it closes stdout.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return PROBLEM
    except Exception as defect:
        return _defect(defect, output)


def _defect(defect: Exception, output: Output) -> int:
    if os.environ.get("DURAGRAPH_DEBUG"):
        traceback.print_exc()
    if isinstance(defect, OSError) and defect.strerror:
        about = f"{defect.filename}: {defect.strerror}" if defect.filename else defect.strerror
        return output.refuse(DuragraphError(about, code="os_error"))
    hint = "DURAGRAPH_DEBUG=1 shows where"
    return output.refuse(DuragraphError(f"a defect, {type(defect).__name__}: {defect}", hint=hint))


class _Parser(argparse.ArgumentParser):
    """Says what is wrong in one line."""

    def error(self, message: str) -> NoReturn:
        hint = f'see "{self.prog} --help"'
        complain(DuragraphError(message, code="usage", hint=hint), as_json="--json" in sys.argv)
        raise SystemExit(MISUSED)


def _parser() -> argparse.ArgumentParser:
    parser = _Parser(
        prog="duragraph",
        description="Durable execution of agent graphs on PostgreSQL alone.",
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    parser.add_argument("--version", action="version", version=f"duragraph {__version__}")
    commands = parser.add_subparsers(title="commands", required=True, metavar="COMMAND")
    _add_dev(commands)
    _add_serve(commands)
    _add_migrate(commands)
    _add_doctor(commands)
    _add_runs(commands)
    _add_top(commands)
    return parser


Commands = argparse._SubParsersAction  # argparse has no public name for what add_subparsers gives


def _add(commands: Commands[_Parser], name: str, about: str, command: Command, *, data: bool = True) -> _Parser:
    parser = commands.add_parser(
        name,
        help=about,
        description=about[0].upper() + about[1:] + ".",
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    parser.add_argument("--json", action="store_true", help="answer in JSON, without colour")
    if data:
        about_data = f'the folder of a "duragraph dev" database, instead of DATABASE_URL (else {DEFAULT_DATA_DIR})'
        parser.add_argument("--data", type=Path, metavar="DIR", help=about_data)
    parser.set_defaults(command=command)
    return parser


def _add_dev(commands: Commands[_Parser]) -> None:
    about = "run everything on this machine: PostgreSQL, the API, and a worker for each target"
    parser = _add(commands, "dev", about, dev.run, data=False)
    parser.add_argument("--host", help="the address to listen on (DURAGRAPH_HOST, else 127.0.0.1)")
    parser.add_argument("--port", type=_number(0, 65535), help="the port; 0 for a free one (DURAGRAPH_PORT, else 8081)")
    where = parser.add_mutually_exclusive_group()
    where.add_argument("--data", type=Path, metavar="DIR", help=f"where the database is kept ({DEFAULT_DATA_DIR})")
    where.add_argument("--memory", action="store_true", help="a database that is gone afterwards")
    parser.add_argument("--config", type=Path, metavar="FILE", help='a langgraph.json: its "graphs" are targets')
    parser.add_argument("--no-reload", action="store_true", help="do not restart workers when their files change")
    parser.add_argument("targets", nargs="*", metavar="TARGET", help='"agent.py:MyAgent", "agent.py" or "module:Graph"')


def _add_serve(commands: Commands[_Parser]) -> None:
    about = "run the API on the database of DATABASE_URL, for production"
    parser = _add(commands, "serve", about, serve.run, data=False)
    parser.add_argument("--host", help="the address to listen on (DURAGRAPH_HOST, else 127.0.0.1)")
    parser.add_argument("--port", type=_number(0, 65535), help="the port (DURAGRAPH_PORT, else 8081)")
    parser.add_argument("--workers", type=_number(1, 1000), default=1, metavar="N", help="processes (%(default)s)")
    parser.add_argument("--migrate", action="store_true", help="bring the database up to date first")


def _add_migrate(commands: Commands[_Parser]) -> None:
    parser = _add(commands, "migrate", "bring the database to the schema that this version needs", _migrate)
    parser.add_argument("--status", action="store_true", help="only say where it stands; 1 when it is not up to date")


def _add_doctor(commands: Commands[_Parser]) -> None:
    parser = _add(commands, "doctor", "check the database and say what to do; 1 when a check fails", doctor.run)
    about = "API processes to reckon with (those that are connected, at least 1)"
    parser.add_argument("--processes", type=_number(1, 10000), metavar="N", help=about)
    about = "a transaction older than this is worth a word (%(default)s)"
    parser.add_argument("--snapshot-seconds", type=_number(0, 10**9), default=300, metavar="S", help=about)


def _add_runs(commands: Commands[_Parser]) -> None:
    group = commands.add_parser("runs", help="list, show, tail, cancel and retry runs", epilog=_EPILOG,
                                formatter_class=argparse.RawDescriptionHelpFormatter)  # fmt: skip
    verbs = group.add_subparsers(title="commands", required=True, metavar="COMMAND")
    listing = _add(verbs, "list", "list the newest runs", runs.list_runs)
    listing.add_argument("--status", choices=_STATUSES, help="only those")
    listing.add_argument("--graph", metavar="ID", help="only those of a graph")
    listing.add_argument("--thread", type=_id("thread"), metavar="ID", help="only those of a thread")
    listing.add_argument("--limit", type=_number(1, 10000), default=20, metavar="N", help="at most (%(default)s)")
    showing = _add(verbs, "show", "show a run: how it is and why, what it completed, what came out", runs.show_run)
    showing.add_argument("run", type=_id("run"), metavar="RUN")
    tailing = _add(verbs, "tail", "follow the events of a run to its end; 0 when it succeeds", runs.tail_run)
    tailing.add_argument("run", type=_id("run"), metavar="RUN")
    tailing.add_argument("--after", type=_number(0, 2**31 - 1), default=0, metavar="SEQ", help="from this event on")
    cancelling = _add(verbs, "cancel", "end runs now", runs.cancel_runs)
    cancelling.add_argument("runs", nargs="+", type=_id("run"), metavar="RUN")
    cancelling.add_argument("--reason", default="cancelled by an operator", help="kept with the run (%(default)s)")
    retrying = _add(verbs, "retry", "queue failed or cancelled runs again; finished steps stay", runs.retry_runs)
    retrying.add_argument("runs", nargs="+", type=_id("run"), metavar="RUN")


def _add_top(commands: Commands[_Parser]) -> None:
    parser = _add(commands, "top", "watch the queue, the workers and what runs", top.run)
    parser.add_argument("--once", action="store_true", help="print it once")
    parser.add_argument(
        "--interval", type=_seconds, default=1.0, metavar="S", help="seconds between looks (%(default)s)"
    )


def _migrate(options: argparse.Namespace, output: Output) -> int:
    found = database.find(options.data)
    if not options.status:
        applied = found.migrate()
        installed = found.status().installed
        done = f"applied {', '.join(applied)}" if applied else "nothing was missing"
        output.say(f"{done}; the schema is at {installed}")
        if output.as_json:
            output.line({"applied": applied, "installed": installed})
        return DONE
    status = found.status()
    missing = f"; missing: {', '.join(status.pending)}" if status.pending else ""
    output.say(f"the schema is at {status.installed}, this version needs {status.needed}{missing}")
    if output.as_json:
        output.line(asdict(status))
    return DONE if status.installed == status.needed else PROBLEM


def _number(low: int, high: int) -> Callable[[str], int]:
    def read(text: str) -> int:
        try:
            number = int(text)
        except ValueError:
            raise argparse.ArgumentTypeError(f'"{text}" is not a number') from None
        if not low <= number <= high:
            raise argparse.ArgumentTypeError(f"{number} is not from {low} to {high}")
        return number

    return read


def _seconds(text: str) -> float:
    try:
        seconds = float(text)
    except ValueError:
        raise argparse.ArgumentTypeError(f'"{text}" is not a number') from None
    if not 0.05 <= seconds <= 86400:
        raise argparse.ArgumentTypeError(f"{text} is not from 0.05 to 86400 seconds")
    return seconds


def _id(kind: str) -> Callable[[str], UUID]:
    def read(text: str) -> UUID:
        try:
            return UUID(text)
        except ValueError:
            where = '; "duragraph runs list" shows them' if kind == "run" else ""
            raise argparse.ArgumentTypeError(f'"{text}" is not the id of a {kind}{where}') from None

    return read


if __name__ == "__main__":
    raise SystemExit(main())
