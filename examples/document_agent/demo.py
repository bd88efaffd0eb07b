"""What `make demo` runs: the document agent on real files, with a worker killed half-way and the proof afterwards.

    demo.py [--keep] [--ledger]

DEMO_PATH is the folder to read (default: this repository), DEMO_QUESTION the question. Everything is started in a
temporary folder and stopped at the end; nothing outside of it is written. Exit codes: 0 all went as promised, 1 it did
not, 2 there is nothing to read, 130 interrupted.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections import Counter
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from agent import MAX_DOCUMENTS, MODEL, PROVIDER, WIDTH, find_documents
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table

from duragraph_worker import Client, DuraGraphError

HERE = Path(__file__).resolve().parent
REPOSITORY = HERE.parent.parent
QUESTION = "From which step does a run go on when its worker dies?"
WORKERS = ("reader-1", "reader-2", "reader-3")
LEASE_SECONDS = 3
PATIENCE = 60.0  # seconds for any one thing to happen
SILENCE = 300.0  # seconds without an event: a model may be slow
WATCHABLE = 10.0  # seconds that all digests take together when no model is asked

LEDGER = """
select coalesce(json_agg(x), '[]') from (
  select c.step + 1 as step, l.what as node, t.task -> 'input' ->> 'name' as document, l.attempt, l.worker_id as worker,
    round(extract(epoch from l.took) * 1000) as ms
  from duragraph.run_ledger l
  join duragraph.checkpoints c using (shard, tenant_id, run_id, checkpoint_id)
  cross join lateral json_array_elements(c.tasks) as t (task)
  where l.tenant_id = 1 and l.run_id = '{run_id}' and l.kind = 'node' and t.task ->> 'id' = l.task_id::text
  order by l.n) x
"""

screen = Console(highlight=False, width=None if sys.stdout.isatty() else 120)


class DemoError(Exception):
    """It did not go as promised; the message says what."""


class Stage:
    """The demo's processes and their folder. Leaving it stops the first and removes the second."""

    def __init__(self) -> None:
        self.folder = Path(tempfile.mkdtemp(prefix="duragraph-demo-"))
        self.folder.chmod(0o711)  # PostgreSQL, which is never root, must get through it
        self.data = self.folder / "data"
        self.port = _free_port()
        self.url = f"http://127.0.0.1:{self.port}"
        self.processes: dict[str, subprocess.Popen[bytes]] = {}

    def __enter__(self) -> Stage:
        return self

    def __exit__(self, *_: object) -> None:
        for one in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            signal.signal(one, signal.SIG_IGN)
        for names in (WORKERS, ("server",)):
            self._stop([process for name in names if (process := self.processes.get(name))])
        subprocess.run(self.postgres("stop"), check=False)
        shutil.rmtree(self.folder, ignore_errors=True)

    def _stop(self, processes: list[subprocess.Popen[bytes]]) -> None:
        for process in processes:
            process.terminate()
        for process in processes:
            try:
                process.wait(15)
            except subprocess.TimeoutExpired:
                os.killpg(process.pid, signal.SIGKILL)
                process.wait()

    def start_server(self) -> None:
        """`duragraph dev` with a PostgreSQL of its own, whatever database this shell is set up for."""
        kept = {k: v for k, v in os.environ.items() if k != "DATABASE_URL" and not k.startswith(("DURAGRAPH_", "PG"))}
        chosen = {k: v for k, v in os.environ.items() if k == "DURAGRAPH_PG_BIN"}
        command = [_script("duragraph"), "dev", "--port", str(self.port), "--data", str(self.data)]
        self._start("server", command, {**kept, **chosen})

    def start_workers(self, pause: float) -> None:
        """Three processes, as three machines would be."""
        target = f"{HERE / 'agent.py'}:DocumentAgent"
        for name in WORKERS:
            command = [sys.executable, "-m", "duragraph_worker.cli", "run", target, "--url", self.url, "--name", name]
            options = ["--lease-seconds", str(LEASE_SECONDS), "--shutdown-timeout", "1"]
            self._start(name, [*command, *options], {**os.environ, "DEMO_PAUSE": str(pause)})

    def _start(self, name: str, command: list[str], environment: dict[str, str]) -> None:
        # A session of its own: Ctrl-C reaches the demo alone, which then stops everything in order.
        with self.log(name).open("wb") as log:
            self.processes[name] = subprocess.Popen(
                command, stdin=subprocess.DEVNULL, stdout=log, stderr=log, env=environment, start_new_session=True
            )

    def kill(self, name: str) -> None:
        """SIGKILL: no word to anybody, nothing flushed."""
        self.processes[name].kill()
        self.processes[name].wait()

    def check(self) -> None:
        """Raise DemoError when a process ended by itself."""
        for name, process in self.processes.items():
            if process.poll() not in (None, -signal.SIGKILL):
                raise DemoError(f"{name} ended with exit code {process.returncode}:\n{self.last_words(name)}")

    def last_words(self, name: str) -> str:
        """The end of what a process said."""
        return "\n".join(self.log(name).read_text(errors="replace").splitlines()[-15:])

    def log(self, name: str) -> Path:
        """Where it says it."""
        return self.folder / f"{name}.log"

    def postgres(self, *arguments: str) -> list[str]:
        """The command that `make db` is made of, for the demo's database."""
        return [sys.executable, "-m", "duragraph.postgres", "--data", str(self.data), *arguments]

    def ledger(self, run_id: str) -> list[dict[str, Any]]:
        """The completed nodes of a run, as PostgreSQL has them."""
        command = self.postgres("psql", "-X", "-A", "-t", "-c", LEDGER.format(run_id=run_id))
        rows: list[dict[str, Any]] = json.loads(subprocess.run(command, capture_output=True, check=True).stdout)
        return rows


class Bar:
    """Digests done: a bar on a terminal, a line each quarter elsewhere."""

    def __init__(self) -> None:
        columns = [TextColumn("  digesting"), BarColumn(40), MofNCompleteColumn(), TimeElapsedColumn()]
        self.total, self.done = 0, 0
        self.progress = Progress(*columns, console=screen, disable=not screen.is_terminal)
        self.task = self.progress.add_task("digesting", total=None)

    def begin(self, total: int) -> None:
        """So many there are."""
        self.total = total
        self.progress.update(self.task, total=total)
        self.progress.start()

    def advance(self) -> None:
        """One more."""
        self.done += 1
        self.progress.advance(self.task)
        if self.progress.disable and self.done * 4 // self.total > (self.done - 1) * 4 // self.total:
            screen.print(f"  digested {self.done} of {self.total}")

    def stop(self) -> None:
        """What follows is written below."""
        self.progress.stop()


@dataclass
class Watched:
    """What the stream of the run told, with the moments since it was created."""

    run_id: str = ""
    thread_id: str = ""
    first_event: float = 0.0
    documents: list[str] = field(default_factory=list)
    killed: str = ""
    killed_at: float = 0.0
    successor: str = ""
    taken_over: float = 0.0  # after the kill
    digested: int = 0
    tokens: int = 0
    started: list[tuple[str, int]] = field(default_factory=list)  # document and attempt of each digest begun
    total: float = 0.0


async def play(stage: Stage, folder: Path, question: str) -> Watched:
    """Start everything, run the agent, kill its worker half-way, follow it to its end."""
    documents = find_documents(folder)
    began = time.monotonic()
    stage.start_server()
    async with Client(stage.url) as client:
        await until("the control plane answers", stage, lambda: _answers(client))
        _say("control plane", f"{stage.url}, with a PostgreSQL of its own; ready in {time.monotonic() - began:.1f} s")
        stage.start_workers(pause=min(1.0, WATCHABLE / len(documents)) if PROVIDER == "extractive" else 0.0)
        await until("three workers are there", stage, lambda: _are_healthy(client))
        _say("workers", f"{', '.join(WORKERS)}: three processes, lease {LEASE_SECONDS} s, {WIDTH} digests at once")
        first = "the first " if len(documents) == MAX_DOCUMENTS else ""
        _say("documents", f"{first}{len(documents)} in {'this repository' if folder == REPOSITORY else folder}")
        _say("model", _model())
        _say("question", question)
        screen.print()
        return await follow(client, stage, folder, question, Bar())


async def follow(client: Client, stage: Stage, folder: Path, question: str, bar: Bar) -> Watched:
    """Create the run and read its events to the last."""
    watched = Watched()
    watched.thread_id = (await client.threads.create(metadata={"demo": True}))["thread_id"]
    taking_over: asyncio.Task[None] | None = None
    created = time.monotonic()
    events = client.runs.stream(
        watched.thread_id,
        "document_agent",
        input={"path": str(folder), "question": question},
        config={"recursion_limit": 1000},
        stream_mode=["updates", "custom", "messages-tuple"],
    )
    try:
        async with asyncio.timeout(SILENCE) as patience:
            async for part in events:
                patience.reschedule(asyncio.get_running_loop().time() + SILENCE)
                watched.first_event = watched.first_event or time.monotonic() - created
                note(part.event, part.data, watched, bar)
                if taking_over is None and watched.started and bar.done >= bar.total // 2:
                    await kill_holder(client, stage, watched)
                    taking_over = asyncio.create_task(see_taken_over(client, stage, watched))
        watched.total = time.monotonic() - created
    except TimeoutError:
        raise DemoError(f"the run was silent for {SILENCE:.0f} s:\n{stage.last_words('server')}") from None
    finally:
        bar.stop()
        if taking_over is not None:
            taking_over.cancel()
    screen.print("\n")
    return watched


def note(event: str, data: Any, watched: Watched, bar: Bar) -> None:
    """Take one event of the stream."""
    if event == "metadata":
        watched.run_id = data["run_id"]
    elif event == "error":
        raise DemoError(f"the run failed: {data['error']}: {data['message']}")
    elif event == "custom":
        watched.started.append((data["reading"], data["attempt"]))
    elif event == "updates" and "discover" in data:
        watched.documents = data["discover"]["documents"]
        bar.begin(len(watched.documents))
    elif event == "updates" and "digest" in data:
        watched.digested += 1
        bar.advance()
    elif event == "updates" and "index" in data:
        bar.stop()
        screen.print("\n[bold]Answer[/], as it streams:\n")
    elif event == "messages" and data[1]["langgraph_node"] == "answer":
        watched.tokens += 1
        screen.print(data[0]["content"], end="", markup=False, soft_wrap=True)


async def kill_holder(client: Client, stage: Stage, watched: Watched) -> None:
    """SIGKILL the worker that the control plane says holds the run."""
    holders = await _holders(client)
    if not holders:
        raise DemoError("no worker holds the run half-way; is the folder too small for a kill?")
    watched.killed, watched.killed_at = holders[0], time.monotonic()
    stage.kill(watched.killed)
    screen.print(f"  [bold red]SIGKILL[/] {watched.killed}, which holds the run, after {watched.digested} digests")


async def see_taken_over(client: Client, stage: Stage, watched: Watched) -> None:
    """Wait until another worker holds the run."""

    async def successor() -> bool:
        watched.successor = next((name for name in await _holders(client) if name != watched.killed), "")
        return bool(watched.successor)

    await until("another worker takes over", stage, successor)
    watched.taken_over = time.monotonic() - watched.killed_at
    screen.print(f"  [bold green]{watched.successor}[/] has taken over, {watched.taken_over:.1f} s later")


async def until(what: str, stage: Stage, condition: Any) -> None:
    """Ask until it is so. Raises DemoError naming what was awaited."""
    deadline = time.monotonic() + PATIENCE
    while not await condition():
        stage.check()
        if time.monotonic() > deadline:
            raise DemoError(f"waited {PATIENCE:.0f} s in vain until {what}:\n{stage.last_words('server')}")
        await asyncio.sleep(0.05)


async def _answers(client: Client) -> bool:
    with suppress(DuraGraphError, OSError):
        return bool(await client.request("GET", "/ok"))
    return False


async def _are_healthy(client: Client) -> bool:
    workers = (await client.request("GET", "/workers"))["workers"]
    return {worker["worker_id"] for worker in workers if worker["healthy"]} >= set(WORKERS)


async def _holders(client: Client) -> list[str]:
    workers = (await client.request("GET", "/workers"))["workers"]
    return [worker["worker_id"] for worker in workers if worker["active_runs"]]


def show_ledger(rows: list[dict[str, Any]], *, whole: bool) -> None:
    """The completed nodes in order; long stretches of digests by one worker are folded."""
    table = Table("step", "node", "document", "attempt", "worker", "ms", box=None, header_style="bold", pad_edge=False)
    for number, row in enumerate(rows):
        near = rows[max(0, number - 3) : number + 4]
        alike = (
            len(near) == 7 and len({(one["node"] == "digest", one["worker"]) for one in near if one["document"]}) == 1
        )
        if whole or not alike:
            cells = [row[name] for name in ("step", "node", "document", "attempt", "worker", "ms")]
            table.add_row(*("" if cell is None else str(cell) for cell in cells))
        elif table.rows and not str(list(table.columns[0].cells)[-1]).startswith("..."):
            table.add_row("...", "", "", "", "", "")
    screen.print(table)


def prove(rows: list[dict[str, Any]], watched: Watched) -> str:
    """What was counted, in a sentence. Raises DemoError when a finished step ran again, or one is missing."""
    finished = Counter(row["document"] for row in rows if row["node"] == "digest")
    others = Counter((row["step"], row["node"]) for row in rows if row["node"] != "digest")
    before = {row["document"] for row in rows if row["node"] == "digest" and row["worker"] == watched.killed}
    attempts = {row["document"]: row["attempt"] for row in rows if row["node"] == "digest"}
    again = [name for name, attempt in watched.started if attempt > attempts.get(name, attempt)]
    problems = [
        (finished != Counter(watched.documents), "the ledger does not have each document once"),
        (set(others.values()) != {1}, f"a node ran twice: {others.most_common(1)}"),
        ({node for _, node in others} != {"discover", "spread", "index", "answer"}, f"nodes are missing: {others}"),
        (
            watched.digested != len(watched.documents),
            f"{watched.digested} digests were streamed for {len(watched.documents)} documents",
        ),
        (bool(again), f"finished digests were started again: {again}"),
        (not watched.killed, "no worker was killed"),
        (len({row["worker"] for row in rows}) < 2, "no other worker took over"),
    ]
    if wrong := [text for is_wrong, text in problems if is_wrong]:
        raise DemoError("; ".join(wrong))
    repeated = len(watched.started) - len({name for name, _ in watched.started})
    return (
        f"{len(rows)} steps, each finished once. Digests finished when {watched.killed} was killed: {len(before)}, "
        f"none of them started again. Digests in flight then, and therefore started a second time: {repeated}."
    )


def show_timings(watched: Watched) -> None:
    """The moments."""
    _say("create -> first event", f"{watched.first_event * 1000:.0f} ms")
    if watched.successor:
        _say("kill -> taken over", f"{watched.taken_over:.1f} s: the lease of {LEASE_SECONDS} s has to run out first")
    _say("create -> end", f"{watched.total:.1f} s, {watched.tokens} tokens streamed")


def show_how_to_watch(stage: Stage, watched: Watched, *, kept: bool) -> None:
    """Commands that can be pasted."""
    path = f"/threads/{watched.thread_id}/runs/{watched.run_id}"
    query = (
        "select n, what, kind, attempt, worker_id, took from duragraph.run_ledger "
        f"where tenant_id = 1 and run_id = '{watched.run_id}'"
    )
    sdk = (
        "from langgraph_sdk import get_sync_client as client; "
        f"runs = client(url='{stage.url}').runs; "
        f"[print(part.event, part.data) for part in runs.join_stream('{watched.thread_id}', '{watched.run_id}', "
        "last_event_id='-1')]"
    )
    commands = {
        "psql": f'{" ".join(map(_shown, stage.postgres("psql")))} -c "{query}"',
        "curl": f"curl -N -H 'Last-Event-ID: -1' {stage.url}{path}/stream",
        "langgraph-sdk": f'{_shown(sys.executable)} -c "{sdk}"',
    }
    state = (
        "The server is up: watch"
        if kept
        else f"With {_shown(sys.executable)} {_shown(__file__)} --keep the server stays up, to watch"
    )
    screen.print(f"[bold]{state} the same run[/] in\n")
    for name, command in commands.items():
        screen.print(f"  {name}:  {command}\n", markup=False, soft_wrap=True)


def _say(what: str, text: str) -> None:
    screen.print(f"  [bold]{what:<22}[/]", end="")
    screen.print(text, markup=False)


def _model() -> str:
    if PROVIDER == "extractive":
        return "none is asked, for no key is set: the best sentences are quoted, slowed down a little to watch"
    return f"{MODEL} at {os.environ.get('OPENAI_BASE_URL') or 'OpenAI'}"


def _shown(path: str) -> str:
    """A path as it is typed here."""
    return path.removeprefix(f"{Path.cwd()}{os.sep}")


def _script(name: str) -> str:
    return str(Path(sys.executable).with_name(name))


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


async def run(stage: Stage, folder: Path, question: str, options: argparse.Namespace) -> None:
    """The demo, from the first process to the last word."""
    this = asyncio.current_task()
    assert this is not None
    for one in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        asyncio.get_running_loop().add_signal_handler(one, this.cancel)
    screen.print("[bold]DuraGraph[/]: a document agent, three workers, one of them killed half-way\n")
    watched = await play(stage, folder, question)
    screen.print("[bold]Ledger[/] of the run, from PostgreSQL:\n")
    rows = stage.ledger(watched.run_id)
    show_ledger(rows, whole=options.ledger)
    screen.print()
    screen.print(f"[bold green]Held:[/] {prove(rows, watched)}\n", soft_wrap=True)
    show_timings(watched)
    screen.print()
    show_how_to_watch(stage, watched, kept=options.keep)
    if options.keep:
        screen.print("Ctrl-C stops everything.")
        await asyncio.Event().wait()


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="A document agent on real files, with a worker killed half-way.")
    parser.add_argument("--keep", action="store_true", help="leave everything up until Ctrl-C")
    parser.add_argument("--ledger", action="store_true", help="print every row of the ledger")
    return parser.parse_args()


def _refuse(message: str) -> int:
    print(f"demo: {message}", file=sys.stderr)
    return 2


def main() -> int:
    """The exit code."""
    options = _options()
    folder = Path(os.environ.get("DEMO_PATH") or REPOSITORY).expanduser().resolve()
    if not folder.is_dir():
        return _refuse(f"DEMO_PATH: there is no folder {folder}")
    if not find_documents(folder):
        return _refuse(f"DEMO_PATH: there are no text files (.md .txt .rst .py .sql) in {folder}")
    with Stage() as stage:
        try:
            asyncio.run(run(stage, folder, os.environ.get("DEMO_QUESTION") or QUESTION, options))
        except DemoError as problem:
            screen.print(f"\n[bold red]Not held:[/] {problem}", soft_wrap=True)
            return 1
        except (DuraGraphError, OSError, subprocess.SubprocessError) as problem:
            screen.print(f"\n[bold red]Failed:[/] {type(problem).__name__}: {problem}", soft_wrap=True)
            return 1
        except (asyncio.CancelledError, KeyboardInterrupt):
            screen.print("\nstopping everything")
            return 0 if options.keep else 130
    return 0


if __name__ == "__main__":
    sys.exit(main())
