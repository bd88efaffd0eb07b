"""`duragraph dev`: PostgreSQL, the API and a worker for each target on this machine, and none of them left behind."""

from __future__ import annotations

import argparse
import asyncio
import importlib.util
import json
import os
import sys
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from http.client import HTTPConnection, HTTPException
from pathlib import Path

from rich.markup import escape
from rich.panel import Panel
from rich.table import Table

from duragraph import __version__
from duragraph.children import Child, Children, Stop, first
from duragraph.config import Settings
from duragraph.database import Database
from duragraph.errors import DuragraphError, Invalid, Unavailable
from duragraph.output import DONE, Output
from duragraph.postgres import DEFAULT_DATA_DIR, EmbeddedPostgres, throwaway
from duragraph.reload import folder_of, watch
from duragraph.serve import open_port

_START_PATIENCE = 60.0
_WORKER_DRAIN = 10.0
_STOP_PATIENCE = 15.0
_BROKEN_TARGET = 2
"""The exit code with which `duragraph-worker` says that a target cannot be loaded: only a change helps."""
_RESTART_AFTER = (1.0, 10.0)


@dataclass(frozen=True, slots=True)
class Target:
    """What a worker is started for, and the folder whose changes restart it."""

    place: str
    folder: Path
    config: bool = False
    """Whether the place is a langgraph.json, whose graphs one worker serves."""


@dataclass(frozen=True, slots=True)
class Home:
    """The database of this `dev`: how to connect, what it is, and how to open psql in it."""

    dsn: str
    about: str
    psql: str
    flag: str
    """What other commands need to find it."""
    embedded: bool


def run(options: argparse.Namespace, output: Output) -> int:
    """Run everything until Ctrl-C or SIGTERM."""
    targets = read_targets(options.targets, options.config)
    if targets and importlib.util.find_spec("duragraph_worker") is None:
        raise DuragraphError("the worker SDK is not installed", hint="pip install duragraph-worker")
    if os.environ.get("DATABASE_URL") and (options.data or options.memory):
        flag = "--memory" if options.memory else "--data"
        raise Invalid(f"DATABASE_URL is set, and {flag} asks for another database", hint="unset one of them")
    # Where the database will be is not known yet, and not asked here.
    asked = Settings.from_environment(database_url="later", host=options.host, port=options.port)
    listening = open_port(asked.host, asked.port)
    options.host, options.port = asked.host, listening.getsockname()[1]
    listening.close()
    return asyncio.run(Dev(options, targets, output).run())


def read_targets(named: list[str], config: Path | None) -> list[Target]:
    """The targets of the command line, each once, and a langgraph.json. Raises `Invalid`."""
    targets = [_target(place) for place in dict.fromkeys(named)]
    return [*targets, *([_read_config(config)] if config else [])]


def _target(place: str) -> Target:
    file = place.partition(":")[0]
    if not file or place.startswith("-"):
        raise Invalid(f'"{place}" names no graph', field="TARGET", hint='write "agent.py:MyAgent" or "module:Graph"')
    if Path(file).suffix in (".js", ".mjs", ".ts"):
        raise Invalid(f"{place}: only Python graphs are run here", field="TARGET", hint="name a .py file")
    looks_like_file = file.endswith(".py") or "/" in file or Path(file).is_dir()
    if looks_like_file and not (Path(file).is_file() and file.endswith(".py")):
        raise Invalid(f"{place}: there is no Python file {file}", field="TARGET", hint="name one that is there")
    return Target(place, folder_of(file))


def _read_config(config: Path) -> Target:
    """A langgraph.json as a target: the worker reads it too, but what is plainly wrong is said at once."""
    try:
        document = json.loads(config.read_text())
    except OSError as problem:
        raise Invalid(f"{config}: {problem.strerror}", field="config", hint="name a langgraph.json") from None
    except ValueError as problem:
        raise Invalid(f"{config} is not JSON: {problem}", field="config", hint="correct it") from None
    graphs = document.get("graphs") if isinstance(document, dict) else None
    if not isinstance(graphs, dict) or not graphs:
        hint = 'write {"graphs": {"agent": "./agent.py:graph"}}'
        raise Invalid(f'{config} has no "graphs"', field="graphs", hint=hint)
    return Target(str(config), config.resolve().parent, config=True)


class Dev:
    """One `duragraph dev`, from its first process to its last."""

    def __init__(self, options: argparse.Namespace, targets: list[Target], output: Output) -> None:
        self._options = options
        self._targets = targets
        self._output = output
        self._url = f"http://{_reachable(options.host)}:{options.port}"
        self._changed = {target: asyncio.Event() for target in targets}

    async def run(self) -> int:
        """Start, wait for the end, and stop in the reverse order: workers, the API, PostgreSQL."""
        stop = Stop()
        with stop.caught(), Children(self._say_line).reaped() as children, ExitStack() as databases:
            # In a thread: a signal that comes meanwhile is kept, and nothing is left half started.
            home = await asyncio.to_thread(self._open_database, databases)
            if stop.asked.is_set():
                return DONE
            api = children.start("api", self._api_command(), self._api_environment(home))
            try:
                await self._wait_until_ready(api, stop)
                if not stop.asked.is_set():
                    self._announce(home)
                    await self._work(children, api, stop)
            finally:
                self._tell("stopping")
                await api.stop(_STOP_PATIENCE)
        self._tell("stopped")
        return DONE

    async def _work(self, children: Children, api: Child, stop: Stop) -> None:
        tasks = [asyncio.create_task(self._keep_worker(children, target, stop)) for target in self._targets]
        if self._targets and not self._options.no_reload:
            tasks.append(asyncio.create_task(self._reload()))
        try:
            await first(stop.asked, api.ended)
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
        if not stop.asked.is_set():
            raise Unavailable(f"the API ended by itself, with {api.code}", hint="its last lines above say why")

    # the database

    def _open_database(self, stack: ExitStack) -> Home:
        home = self._find_database(stack)
        settings = Settings.from_environment(database_url=home.dsn, listen_url=home.dsn)
        database = Database(settings, home.about)
        database.migrate()
        if home.embedded:
            database.add_pgvector()
        return home

    def _find_database(self, stack: ExitStack) -> Home:
        if given := os.environ.get("DATABASE_URL"):
            return Home(given, "DATABASE_URL", 'psql "$DATABASE_URL"', "", False)
        if self._options.memory:
            server = stack.enter_context(throwaway())
            return _embedded(server, f"PostgreSQL in {server.data_dir}, gone afterwards", server.data_dir)
        folder: Path = self._options.data or DEFAULT_DATA_DIR
        if folder == DEFAULT_DATA_DIR:
            _keep_out_of_git(folder.parent)
        server = stack.enter_context(EmbeddedPostgres(folder))
        whose = "" if server.started_here else ", which another process runs"
        return _embedded(server, f"PostgreSQL in {folder}{whose}", None if folder == DEFAULT_DATA_DIR else folder)

    # the API

    def _api_command(self) -> list[str]:
        port = str(self._options.port)
        json_flag = ["--json"] if self._output.as_json else []
        here = [sys.executable, "-m", "duragraph.cli", "serve"]
        return [*here, "--host", self._options.host, "--port", port, *json_flag]

    def _api_environment(self, home: Home) -> dict[str, str]:
        environment = os.environ | {"DATABASE_URL": home.dsn, "PYTHONUNBUFFERED": "1"}
        environment.setdefault("DURAGRAPH_LOG_LEVEL", "warning")
        # Whoever waits for /ok may call a graph at once.
        environment["DURAGRAPH_AWAIT_WORKERS"] = str(len(self._targets))
        if home.embedded:
            environment.pop("DURAGRAPH_LISTEN_URL", None)
        return environment

    async def _wait_until_ready(self, api: Child, stop: Stop) -> None:
        deadline = asyncio.get_running_loop().time() + _START_PATIENCE
        while not stop.asked.is_set():
            if api.ended.is_set():
                raise Unavailable(f"the API did not start, it ended with {api.code}", hint="its lines above say why")
            if await asyncio.to_thread(_answers, _reachable(self._options.host), self._options.port):
                return
            if asyncio.get_running_loop().time() > deadline:
                raise Unavailable(f"{self._url} did not answer in {_START_PATIENCE:.0f} s", hint="see its lines above")
            await first(stop.asked, api.ended, timeout=0.05)

    # the workers

    async def _keep_worker(self, children: Children, target: Target, stop: Stop) -> None:
        """One worker at a time for a target: started anew when it ends, and when its files change."""
        changed, delay = self._changed[target], _RESTART_AFTER[0]
        loop = asyncio.get_running_loop()
        while True:
            changed.clear()
            worker, began = (
                children.start(target.place, self._worker_command(target), self._worker_environment()),
                loop.time(),
            )
            try:
                await first(worker.ended, changed)
            finally:
                if not worker.ended.is_set():
                    self._tell("draining", target.place)
                await worker.stop(_WORKER_DRAIN + 5, hurry=stop.hurry)
            if changed.is_set():
                delay = _RESTART_AFTER[0]
                continue
            if worker.code == _BROKEN_TARGET:
                self._tell("broken", target.place, f"ended with {worker.code}; it starts again when its files change")
                await changed.wait()
                continue
            delay = _RESTART_AFTER[0] if loop.time() - began > _RESTART_AFTER[1] else delay
            self._tell("ended", target.place, f"ended with {worker.code}; it starts again in {delay:.0f} s")
            await first(changed, timeout=delay)
            delay = min(delay * 2, _RESTART_AFTER[1])

    def _worker_command(self, target: Target) -> list[str]:
        named = ["--config", target.place] if target.config else [target.place]
        here = [sys.executable, "-m", "duragraph_worker.cli", "run", *named]
        json_flag = ["--json"] if self._output.as_json else []
        return [*here, "--url", self._url, "--shutdown-timeout", f"{_WORKER_DRAIN:g}", *json_flag]

    def _worker_environment(self) -> dict[str, str]:
        return os.environ | {"DURAGRAPH_URL": self._url, "PYTHONUNBUFFERED": "1"}

    async def _reload(self) -> None:
        try:
            async for paths in watch([target.folder for target in self._targets]):
                for target, changed in self._changed.items():
                    if touched := next((path for path in paths if target.folder in path.parents), None):
                        self._tell("reload", target.place, f"{touched.name} changed")
                        changed.set()
        except DuragraphError as problem:
            self._tell("no reload", None, str(problem))

    # saying it

    def _announce(self, home: Home) -> None:
        if self._output.as_json:
            document = {"event": "ready", "url": self._url, "targets": [target.place for target in self._targets]}
            self._output.line(document | ({"database_url": home.dsn} if home.embedded else {}))
            return
        grid = Table.grid(padding=(0, 2))
        grid.add_column(style="bold")
        grid.add_column(overflow="fold")
        grid.add_row("API", f"{self._url}  [dim](/docs describes it)[/]")
        grid.add_row("database", escape(home.about))
        grid.add_row("psql", escape(home.psql))
        grid.add_row("watch", f"duragraph runs list{escape(home.flag)}, duragraph top{escape(home.flag)}")
        workers = (
            ", ".join(target.place for target in self._targets) or 'none: "duragraph-worker run agent.py" adds one'
        )
        grid.add_row("workers", escape(workers))
        panel = Panel.fit(grid, title=f"DuraGraph {__version__}", subtitle="Ctrl-C stops it all", border_style="green")
        self._output.console.print(panel, soft_wrap=False)

    def _say_line(self, label: str, text: str) -> None:
        if self._output.as_json:
            self._output.line({"event": "line", "from": label, "text": text})
        else:
            self._output.console.print(f"[cyan]{escape(label)} |[/] {escape(text)}", markup=True)

    def _tell(self, event: str, target: str | None = None, about: str = "") -> None:
        if self._output.as_json:
            self._output.line({"event": event, "target": target, "about": about or None})
            return
        said = ": ".join(word for word in (target, about or event) if word)
        self._output.console.print(f"[dim]duragraph | {escape(said)}[/]")


def _embedded(server: EmbeddedPostgres, about: str, folder: Path | None) -> Home:
    flag = f" --data {folder}" if folder else ""
    return Home(server.dsn, about, f"{Path(sys.executable).name} -m duragraph.postgres psql{flag}", flag, True)


def _keep_out_of_git(folder: Path) -> None:
    folder.mkdir(exist_ok=True)
    ignore = folder / ".gitignore"
    if not ignore.exists():
        ignore.write_text("*\n")


def _reachable(host: str) -> str:
    """The address at which this machine reaches what listens on `host`."""
    host = {"0.0.0.0": "127.0.0.1", "::": "::1", "": "127.0.0.1"}.get(host, host)  # noqa: S104 - read, not bound
    return f"[{host}]" if ":" in host else host


def _answers(host: str, port: int) -> bool:
    connection = HTTPConnection(host.strip("[]"), port, timeout=2)
    with suppress(OSError, HTTPException):
        connection.request("GET", "/info")
        return connection.getresponse().status == 200
    connection.close()
    return False
