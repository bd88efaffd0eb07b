"""`duragraph-worker`: run a worker for graphs, or make a new project."""

from __future__ import annotations

import argparse
import logging
import os
import sys
import threading
import traceback
from collections.abc import Sequence
from pathlib import Path

from rich.console import Console
from rich.markup import escape

from duragraph_worker.client import ApiError
from duragraph_worker.hosted import HostedGraph
from duragraph_worker.langgraph_json import read_config, read_embedder
from duragraph_worker.loading import AnyGraph, TargetError, load_graphs
from duragraph_worker.logs import set_up_logging
from duragraph_worker.project import ProjectError, create_project
from duragraph_worker.worker import Worker

# 0: done, or stopped by a signal after an orderly drain. 1: failed. 2: asked for something that cannot be.
FAILED = 1
MISUSED = 2

_TARGETS = '"module:Graph", "file.py:Graph", or "file.py" for every graph in it'


def main(arguments: Sequence[str] | None = None) -> int:
    """The entry point; gives the exit code."""
    options = _parser().parse_args(arguments)
    code: int = options.command(options)
    return code


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="duragraph-worker", description="Runs graphs for a DuraGraph control plane.")
    commands = parser.add_subparsers(required=True, metavar="COMMAND")

    run = commands.add_parser("run", help="claim and execute runs until SIGTERM or Ctrl-C")
    run.add_argument("targets", nargs="*", metavar="TARGET", help=_TARGETS)
    run.add_argument("--config", metavar="FILE", help="a langgraph.json: its graphs are served too")
    run.add_argument("--url", default=os.environ.get("DURAGRAPH_URL") or "http://localhost:8081", help="%(default)s")
    run.add_argument("--name", help="the worker's id (default: host, process and a random part)")
    run.add_argument("--max-concurrent-runs", type=_positive, default=10, metavar="N", help="%(default)s")
    run.add_argument(
        "--lease-seconds", type=_positive, default=30, metavar="S", help="silence after which others take over"
    )
    run.add_argument(
        "--shutdown-timeout", type=_seconds, default=60, metavar="S", help="time for runs to end; %(default)s s"
    )
    run.add_argument("--build-id", default=os.environ.get("DURAGRAPH_BUILD_ID"), help="names the deployed code")
    run.add_argument("--json", action="store_true", help="log one JSON object a line")
    run.set_defaults(command=_run)

    new = commands.add_parser("new", help="make a project: a graph, its test, a README")
    new.add_argument("name", help="the folder to make")
    new.set_defaults(command=_new)
    return parser


def _run(options: argparse.Namespace) -> int:
    set_up_logging(as_json=options.json)
    try:
        graphs = [graph for target in options.targets for graph in load_graphs(target)]
        graphs += _configured(options.config)
        if not graphs:
            raise SystemExit(_fail(f"name a graph to serve, {_TARGETS}; or --config langgraph.json", MISUSED))
        worker = Worker(
            options.url,
            graphs=_distinct(graphs),
            name=options.name,
            max_concurrent_runs=options.max_concurrent_runs,
            lease_seconds=options.lease_seconds,
            shutdown_timeout=options.shutdown_timeout,
            build_id=options.build_id,
            embedder=None if options.config is None else read_embedder(options.config),
        )
        _announce(worker, quiet=options.json)
        worker.run()
    except TargetError as problem:
        _show_cause(problem)
        return _fail(str(problem), MISUSED)
    except ValueError as problem:  # an address that is none
        return _fail(str(problem), MISUSED)
    except ApiError as refusal:
        return _fail(f"the control plane at {options.url} refused this worker: {refusal}", FAILED)
    _leave_if_threads_hang()
    return 0


def _new(options: argparse.Namespace) -> int:
    folder = Path(options.name)
    try:
        files = create_project(folder)
    except (ProjectError, OSError) as problem:
        return _fail(str(problem), MISUSED)
    console = Console()
    console.print(f"[bold green]made[/] {escape(str(folder))}: {', '.join(path.name for path in files)}")
    console.print(
        f"next: [bold]cd {escape(str(folder))}[/], then [bold]pytest[/], then [bold]duragraph-worker run agent.py[/]"
    )
    return 0


def _configured(config: str | None) -> list[AnyGraph]:
    """The graphs of a langgraph.json."""
    return (
        []
        if config is None
        else [graph for graph_id, target in read_config(config) for graph in load_graphs(target, graph_id)]
    )


def _distinct(graphs: Sequence[AnyGraph]) -> list[AnyGraph]:
    found: dict[str, AnyGraph] = {}
    for graph in graphs:
        graph_id = graph.graph_id if isinstance(graph, HostedGraph) else graph.topology().graph_id
        earlier = found.setdefault(graph_id, graph)
        if earlier is not graph and (type(earlier) is not type(graph) or isinstance(graph, HostedGraph)):
            raise TargetError(f'two graphs have the id "{graph_id}"; a worker can serve only one of them')
    return list(found.values())


def _announce(worker: Worker, *, quiet: bool) -> None:
    if quiet:
        return
    graphs = ", ".join(f"[bold]{escape(graph_id)}[/]" for graph_id in worker.graphs)
    Console(stderr=True).print(
        f"serving {graphs} for {escape(worker.url)}, {worker.max_concurrent_runs} runs at once; Ctrl-C drains"
    )


def _show_cause(problem: BaseException) -> None:
    """The user's own traceback, from their file on, where their code failed."""
    cause = problem.__cause__
    if cause is None:
        return
    frames = traceback.extract_tb(cause.__traceback__)
    own = [frame for frame in frames if "importlib" not in frame.filename and "duragraph_worker" not in frame.filename]
    sys.stderr.writelines(traceback.format_list(own))


def _fail(message: str, code: int) -> int:
    Console(stderr=True, soft_wrap=True).print(f"[bold red]duragraph-worker:[/] {escape(message)}", highlight=False)
    return code


def _leave_if_threads_hang() -> None:
    """The runs were handed back; a plain function that never returns must not keep the process."""
    hanging = [thread for thread in threading.enumerate() if thread.name.startswith("duragraph-node")]
    if any(not thread.daemon for thread in hanging) and _still_busy(hanging):
        logging.shutdown()
        sys.stderr.flush()
        os._exit(0)


def _still_busy(threads: Sequence[threading.Thread]) -> bool:
    for thread in threads:
        thread.join(0.2)  # an idle one ends as soon as its pool is shut down
    return any(thread.is_alive() for thread in threads)


def _positive(text: str) -> int:
    number = int(text)
    if number < 1:
        raise argparse.ArgumentTypeError("must be at least 1")
    return number


def _seconds(text: str) -> float:
    number = float(text)
    if not 0 <= number < 86400 * 365:
        raise argparse.ArgumentTypeError("must be seconds, at least 0")
    return number


if __name__ == "__main__":
    raise SystemExit(main())
