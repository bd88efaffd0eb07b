"""The `duragraph` command line, with real processes: what people and scripts see of it."""

from __future__ import annotations

import json
import os
import secrets
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import psycopg
import pytest

from tests.postgres import Server
from tests.sql.scene import Scene
from tests.waiting import wait_for

pytestmark = pytest.mark.xdist_group("cli")

AGENT = """
from typing import TypedDict
from duragraph_worker import Graph, entrypoint, node

class State(TypedDict, total=False):
    name: str
    greeting: str

@Graph(id="greeter", state=State)
class Greeter:
    @entrypoint
    @node()
    async def greet(self, state):
        return {"greeting": f"hello {state['name']}"}
"""
SLOW = """
import asyncio
from pathlib import Path
from typing import TypedDict
from duragraph_worker import Graph, entrypoint, node

class State(TypedDict, total=False):
    done: bool

@Graph(id="slow", state=State)
class Slow:
    @entrypoint
    @node()
    async def wait(self, state):
        Path("slow.started").touch()
        await asyncio.sleep(600)
"""
UNKNOWN = "01900000-0000-7000-8000-000000000000"
NOBODY = "postgresql://somebody:secret@127.0.0.1:1/nothing"


def environment(**more: str) -> dict[str, str]:
    """This one, without what the person who runs the tests has set up."""
    kept = {key: value for key, value in os.environ.items() if not key.startswith(("DURAGRAPH_", "PG"))}
    kept.pop("DATABASE_URL", None)
    return kept | more


def duragraph(*arguments: object, cwd: Path | None = None, **more: str) -> subprocess.CompletedProcess[str]:
    """Run a command to its end."""
    command = [sys.executable, "-m", "duragraph.cli", *map(str, arguments)]
    done = subprocess.run(
        command, capture_output=True, text=True, env=environment(**more), cwd=cwd, check=False, timeout=60
    )
    assert "Traceback" not in done.stderr + done.stdout
    return done


def answer(*arguments: object, code: int = 0, **more: Any) -> Any:
    """What a command says with --json."""
    done = duragraph(*arguments, "--json", **more)
    assert done.returncode == code, done.stdout + done.stderr
    return json.loads(done.stdout)


class Running:
    """A command that goes on, with --json: its documents so far, and every process that came of it."""

    def __init__(self, *arguments: object, cwd: Path, **more: str) -> None:
        self.mark = secrets.token_hex(8)
        self.documents: list[dict[str, Any]] = []
        self.said: list[str] = []
        self.process = subprocess.Popen(
            [sys.executable, "-m", "duragraph.cli", *map(str, arguments), "--json"],
            stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, cwd=cwd, start_new_session=True,
            env=environment(DURAGRAPH_TEST_MARK=self.mark, **more),
        )  # fmt: skip
        self._reader = threading.Thread(target=self._read)
        self._reader.start()

    def _read(self) -> None:
        assert self.process.stdout is not None
        with self.process.stdout as lines:
            for line in lines:
                self.said.append(line)
                try:
                    self.documents.append(json.loads(line))
                except ValueError:
                    continue

    def event(self, name: str, nth: int = 0, timeout: float = 30) -> dict[str, Any]:
        """The nth document of that event."""

        def look() -> dict[str, Any] | None:
            found = [document for document in self.documents if document.get("event") == name]
            assert len(found) > nth or self.process.poll() is None, "".join(self.said)
            return found[nth] if len(found) > nth else None

        return wait_for(look, timeout, what=f"event {name}")

    def lines(self, text: str) -> int:
        """How many lines of its children hold the text."""
        return sum(text in document.get("text", "") for document in self.documents)

    def alive(self) -> list[str]:
        """The processes that carry its mark: itself, and all that it started."""
        found = []
        for place in Path("/proc").glob("[0-9]*"):
            try:
                if self.mark.encode() in (place / "environ").read_bytes():
                    found.append((place / "cmdline").read_bytes().replace(b"\0", b" ").decode())
            except OSError:
                continue
        return found

    def end(self, number: signal.Signals) -> int:
        """Send a signal and wait for the exit code."""
        self.process.send_signal(number)
        code = self.process.wait(40)
        self._reader.join(10)
        return code


@contextmanager
def running(*arguments: object, cwd: Path, **more: str) -> Iterator[Running]:
    command = Running(*arguments, cwd=cwd, **more)
    try:
        yield command
    finally:
        command.end(signal.SIGTERM)


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("project")
    for place in (folder, folder.parent):
        place.chmod(0o755)
    (folder / "agent.py").write_text(AGENT)
    (folder / "langgraph.json").write_text('{"graphs": {"greeter": "./agent.py:Greeter"}}')
    return folder


@pytest.fixture(scope="module")
def dev(project: Path) -> Iterator[Running]:
    """A `duragraph dev` with a worker."""
    with running("dev", "--port", 0, "agent.py:Greeter", cwd=project) as command:
        command.url = command.event("ready")["url"]  # type: ignore[attr-defined]  # for the tests of this file
        wait_for(lambda: command.lines("worker registered"), 30, what="the worker")
        yield command


def greet(dev: Running, **given: object) -> Any:
    """Run the greeter to its end over HTTP."""
    body = {"assistant_id": "greeter", "input": given}
    return httpx.post(f"{dev.url}/runs/wait", json=body, timeout=30).json()  # type: ignore[attr-defined]


# dev


def test_dev_answers_and_runs_a_graph(dev: Running) -> None:
    assert httpx.get(f"{dev.url}/ok").status_code == 200  # type: ignore[attr-defined]
    assert greet(dev, name="you")["greeting"] == "hello you"


def test_the_database_of_dev_ranks_by_meaning_if_it_can(dev: Running) -> None:
    asked = "select a.installed_version is not null from pg_available_extensions a where a.name = 'vector'"
    with psycopg.connect(dev.event("ready")["database_url"]) as connection:
        assert connection.execute(asked).fetchone() in [(True,), None]


def test_the_other_commands_find_the_database_of_dev(dev: Running, project: Path) -> None:
    greet(dev, name="list")
    assert answer("runs", "list", "--status", "success", "--limit", 1, cwd=project)[0]["graph_id"] == "greeter"
    assert answer("top", "--once", cwd=project)["workers"][0]["graphs"] == ["greeter"]
    assert answer("migrate", "--status", cwd=project)["pending"] == []
    assert answer("migrate", cwd=project)["applied"] == []
    assert answer("runs", "list", "--data", project / ".duragraph" / "pg")


def test_doctor_finds_nothing_wrong_with_it(dev: Running, project: Path) -> None:
    examined = answer("doctor", cwd=project)
    assert examined["ok"]
    assert {check["check"]: check["level"] for check in examined["checks"]} == dict.fromkeys(
        [
            "postgresql", "migrations", "listen", "connections", "clock", "fsync", "full_page_writes",
            "synchronous_commit", "autovacuum", "long snapshots", "partitions",
        ],
        "ok",
    )  # fmt: skip


def test_show_tells_what_a_run_did(dev: Running, project: Path) -> None:
    greet(dev, name="show")
    run_id = answer("runs", "list", "--limit", 1, cwd=project)[0]["run_id"]
    shown = answer("runs", "show", run_id, cwd=project)
    assert shown["run"]["status"] == "success"
    assert [step["what"] for step in shown["ledger"]] == ["greet"]
    assert shown["output"]["greeting"] == "hello show"
    assert "It has ended: success" in duragraph("runs", "show", run_id, cwd=project).stdout


def test_tail_gives_the_events_and_whether_it_went_well(dev: Running, project: Path) -> None:
    greet(dev, name="tail")
    [run] = answer("runs", "list", "--limit", 1, cwd=project)
    done = duragraph("runs", "tail", run["run_id"], "--json", cwd=project)
    *events, last = map(json.loads, done.stdout.splitlines())
    assert [event["seq"] for event in events] == list(range(1, len(events) + 1))
    assert events[-1]["data"]["greeting"] == "hello tail"
    assert (done.returncode, last) == (0, {"status": "success"})

    assert "__error__" in greet(dev)
    [run] = answer("runs", "list", "--status", "error", "--limit", 1, cwd=project)
    assert duragraph("runs", "tail", run["run_id"], cwd=project).returncode == 1


def test_retry_runs_a_failed_run_again(dev: Running, project: Path) -> None:
    greet(dev)
    [run] = answer("runs", "list", "--limit", 1, cwd=project)
    [ordered] = answer("runs", "retry", run["run_id"], cwd=project)
    assert (ordered["done"], ordered["status"]) == (True, "pending")
    duragraph("runs", "tail", run["run_id"], cwd=project)
    assert answer("runs", "show", run["run_id"], cwd=project)["run"]["attempt"] == 2


def test_a_change_restarts_the_worker(dev: Running, project: Path) -> None:
    registered = dev.lines("worker registered")
    (project / "agent.py").write_text(AGENT.replace("hello", "good day"))
    wait_for(lambda: dev.lines("worker registered") > registered, 30, what="the new worker")
    assert dev.lines("worker draining")
    assert greet(dev, name="you")["greeting"] == "good day you"


def test_a_worker_that_is_killed_comes_back(dev: Running) -> None:
    registered = dev.lines("worker registered")
    [worker] = [place for place in Path("/proc").glob("[0-9]*") if _is_worker_of(place, dev)]
    os.kill(int(worker.name), signal.SIGKILL)
    wait_for(lambda: dev.lines("worker registered") > registered, 30, what="the worker's return")


def _is_worker_of(place: Path, dev: Running) -> bool:
    try:
        return (
            dev.mark.encode() in (place / "environ").read_bytes()
            and b"duragraph_worker.cli" in (place / "cmdline").read_bytes()
        )
    except OSError:
        return False


@pytest.mark.skipif(not Path("/proc/self/environ").exists(), reason="needs /proc to see the processes")
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_dev_leaves_nothing_running(project: Path, number: signal.Signals) -> None:
    with running("dev", "--port", 0, "--memory", "--config", "langgraph.json", cwd=project) as command:
        command.event("ready")
        wait_for(lambda: command.lines("worker registered"), 30, what="the worker")
        assert len(command.alive()) > 3
        assert command.end(number) == 0
    assert command.alive() == []
    assert command.documents[-1]["event"] == "stopped"


@pytest.mark.skipif(not Path("/proc/self/environ").exists(), reason="needs /proc to see the processes")
def test_a_second_signal_hands_runs_back_at_once(project: Path) -> None:
    (project / "slow.py").write_text(SLOW)
    data = project / "hurried"
    with running("dev", "--port", 0, "--data", data, "slow.py", cwd=project) as command:
        url = command.event("ready")["url"]
        wait_for(lambda: command.lines("worker registered"), 30, what="the worker")
        run_id = httpx.post(f"{url}/runs", json={"assistant_id": "slow", "input": {}}).json()["run_id"]
        wait_for(lambda: (project / "slow.started").exists(), 30, what="the run's start")
        command.process.send_signal(signal.SIGINT)
        wait_for(lambda: command.lines("worker draining"), 10, what="the drain")
        began = time.monotonic()
        assert command.end(signal.SIGINT) == 0
        assert time.monotonic() - began < 8, "the drain alone takes 10 s"
    assert command.alive() == []
    with running("dev", "--port", 0, "--data", data, cwd=project) as command:
        command.event("ready")
        shown = answer("runs", "show", run_id, "--data", data)["run"]
        assert (shown["status"], shown["attempt"]) == ("pending", 0)


@pytest.mark.skipif(not Path("/proc/self/environ").exists(), reason="needs /proc to see the processes")
def test_a_signal_during_the_start_leaves_nothing_running(project: Path) -> None:
    with running("dev", "--port", 0, "--memory", cwd=project) as command:
        wait_for(lambda: any("postgres" in line for line in command.alive()), 30, what="PostgreSQL")
        assert command.end(signal.SIGTERM) == 0
    assert command.alive() == []


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux tells children of their parent's end")
def test_the_workers_and_the_api_end_with_a_dev_that_is_killed(project: Path) -> None:
    data = project / "killed"
    with running("dev", "--port", 0, "--data", data, "agent.py", cwd=project) as command:
        command.event("ready")
        wait_for(lambda: command.lines("worker registered"), 30, what="the worker")
        command.end(signal.SIGKILL)
        wait_for(lambda: not any("duragraph" in line for line in command.alive() if "postgres" not in line), 30,
                 what="the end of the children")  # fmt: skip
    stop = [sys.executable, "-m", "duragraph.postgres", "--data", str(data), "stop"]
    subprocess.run(stop, check=True, env=environment())
    assert command.alive() == []


def test_dev_says_that_its_port_is_taken(project: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        done = duragraph("dev", "--port", port, cwd=project, DURAGRAPH_PORT="1")
    assert done.returncode == 2
    assert f"port {port} is taken" in done.stderr


def test_dev_listens_where_the_environment_says_unless_a_flag_says_otherwise(project: Path) -> None:
    with socket.create_server(("127.0.0.2", 0)) as taken:
        port = taken.getsockname()[1]
        done = duragraph("dev", cwd=project, DURAGRAPH_HOST="127.0.0.2", DURAGRAPH_PORT=str(port))
    assert (done.returncode, f"port {port} is taken" in done.stderr) == (2, True)
    wrong = duragraph("dev", cwd=project, DURAGRAPH_PORT="http")
    assert (wrong.returncode, "DURAGRAPH_PORT is 'http' and must be a number" in wrong.stderr) == (2, True)


# bad input


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ((), "required: COMMAND"),
        (("frobnicate",), "invalid choice"),
        (("dev", "missing.py:Agent"), "there is no Python file missing.py"),
        (("dev", "agent.ts:agent"), "only Python graphs"),
        (("dev", ":Agent"), "names no graph"),
        (("dev", "--port", "99999"), "not from 0 to 65535"),
        (("dev", "--port", "http"), "is not a number"),
        (("dev", "--host", "no.such.host.invalid"), "is no address of this machine"),
        (("dev", "--config", "missing.json"), "No such file"),
        (("dev", "--config", "agent.py"), "is not JSON"),
        (("dev", "--config", "empty.json"), 'has no "graphs"'),
        (("dev", "--memory", "--data", "x"), "not allowed with"),
        (("runs", "show", "abc"), '"abc" is not the id of a run'),
        (("runs", "list", "--status", "finished"), "invalid choice: 'finished'"),
        (("runs", "list", "--limit", "0"), "not from 1 to 10000"),
        (("runs", "cancel"), "required: RUN"),
        (("top", "--interval", "never"), "is not a number"),
        (("serve",), "set DATABASE_URL"),
        (("serve", "--workers", "0"), "not from 1 to 1000"),
    ],
)
def test_bad_arguments_get_one_clear_line(project: Path, arguments: tuple[str, ...], said: str) -> None:
    (project / "empty.json").write_text("{}")
    done = duragraph(*arguments, cwd=project)
    assert done.returncode == 2
    assert said in done.stderr
    assert done.stderr.startswith("duragraph: ")
    assert len(done.stderr.splitlines()) == 1


def test_a_database_that_is_not_meant_is_not_used(project: Path) -> None:
    done = duragraph("dev", "--memory", cwd=project, DATABASE_URL=NOBODY)
    assert done.returncode == 2
    assert "--memory asks for another database" in done.stderr


@pytest.mark.parametrize(
    "arguments",
    [("runs", "list"), ("runs", "show", UNKNOWN), ("top",), ("migrate",), ("doctor",), ("serve",), ("dev",)],
)
def test_a_database_that_cannot_be_reached_is_told_by_the_exit_code(tmp_path: Path, arguments: tuple[str, ...]) -> None:
    port = ("--port", "0") if arguments[0] in ("serve", "dev") else ()
    done = duragraph(*arguments, *port, cwd=tmp_path, DATABASE_URL=NOBODY)
    assert done.returncode == 3
    assert "cannot reach the database" in done.stderr + done.stdout
    assert "secret" not in done.stderr + done.stdout


def test_without_any_database_a_command_says_where_to_get_one(tmp_path: Path) -> None:
    done = duragraph("runs", "list", "--json", cwd=tmp_path)
    assert done.returncode == 3
    assert 'start "duragraph dev"' in json.loads(done.stderr)["error"]["hint"]


def test_a_password_in_an_address_that_cannot_be_read_is_not_shown(tmp_path: Path) -> None:
    done = duragraph("top", cwd=tmp_path, DATABASE_URL="postgresql://me:se%zzcret@127.0.0.1/x")
    assert done.returncode == 2
    assert "zzcret" not in done.stderr


# migrate and serve


def test_migrate_tells_where_it_stands_and_gets_there(empty_db: str) -> None:
    before = answer("migrate", "--status", code=1, DATABASE_URL=empty_db)
    assert (before["installed"], before["pending"][0]) == (0, "0001_core")
    assert answer("migrate", DATABASE_URL=empty_db)["applied"] == before["pending"]
    assert answer("migrate", "--status", DATABASE_URL=empty_db)["installed"] == before["needed"]


@pytest.mark.parametrize("arguments", [("runs", "list"), ("top", "--once"), ("serve", "--port", "0")])
def test_a_database_without_the_schema_is_refused_with_the_remedy(empty_db: str, arguments: tuple[str, ...]) -> None:
    done = duragraph(*arguments, DATABASE_URL=empty_db)
    assert done.returncode == 1
    assert 'run "duragraph migrate"' in done.stderr


@pytest.mark.parametrize("processes", [1, 2])
def test_serve_migrates_when_asked_serves_and_drains(empty_db: str, tmp_path: Path, processes: int) -> None:
    arguments = ("serve", "--port", 0, "--migrate", "--workers", processes)
    with running(*arguments, cwd=tmp_path, DATABASE_URL=empty_db) as command:
        port = command.event("listening")["port"]
        command.event("started", processes - 1)
        assert httpx.get(f"http://127.0.0.1:{port}/health").json()["schema_version"]["problem"] is None
        with httpx.stream("GET", f"http://127.0.0.1:{port}/ok") as response:
            assert response.status_code == 200
        assert command.end(signal.SIGTERM) == 0
        assert len([one for one in command.documents if one.get("event") == "stopped"]) == processes
    assert command.alive() == []


# runs


@pytest.fixture
def scene(fresh_db: str) -> Iterator[Scene]:
    """Somebody who acts on a database of the test's own."""
    with psycopg.connect(fresh_db, autocommit=True) as connection:
        scene = Scene(connection)
        scene.dsn = fresh_db  # type: ignore[attr-defined]  # for the tests of this file
        yield scene


def ask(scene: Scene, *arguments: object, code: int = 0) -> Any:
    return answer(*arguments, code=code, DATABASE_URL=scene.dsn)  # type: ignore[attr-defined]


def test_list_tells_the_states_apart(scene: Scene) -> None:
    worker = scene.worker()
    done, going = scene.run(None), scene.run(None)
    claim, _ = scene.claim(worker, 2)
    scene.commit(claim, end={"status": "success"})
    waits = scene.run(None)
    done, going = (done, going) if claim["run_id"] == done else (going, done)
    for status, run_id in (("success", done), ("running", going), ("pending", waits)):
        assert [run["run_id"] for run in ask(scene, "runs", "list", "--status", status)] == [run_id]
    assert [run["run_id"] for run in ask(scene, "runs", "list", "--limit", 1)] == [waits]
    assert ask(scene, "runs", "list", "--graph", "other") == []


def test_a_change_of_state_that_a_worker_makes_is_shown_but_not_listed(scene: Scene) -> None:
    scene.worker()
    steps = [{"updates": [{"values": {"target": 1}}]}]
    update = str(scene.call("begin_update", scene.thread(graph_id="counter"), steps))
    assert ask(scene, "runs", "list") == ask(scene, "runs", "list", "--status", "pending") == []
    assert ask(scene, "runs", "show", update)["run"]["kind"] == "update"


def test_show_says_why_a_run_waits(scene: Scene) -> None:
    scene.worker()
    thread = scene.thread()
    scene.run(thread)
    second = scene.run(thread)
    shown = ask(scene, "runs", "show", second)
    assert "It waits behind run" in shown["run"]["why"]
    assert [run["run_id"] for run in ask(scene, "runs", "list", "--thread", thread, "--limit", 1)] == [second]


def test_cancel_ends_a_run_once(scene: Scene) -> None:
    scene.worker()
    run_id = scene.run(None)
    [ordered] = ask(scene, "runs", "cancel", run_id, "--reason", "not wanted")
    assert (ordered["done"], ordered["status"]) == (True, "interrupted")
    assert "not wanted" in ask(scene, "runs", "show", run_id)["run"]["why"]
    [again] = ask(scene, "runs", "cancel", run_id, code=1)
    assert (again["done"], again["message"]) == (False, f"Run {run_id} has already ended: interrupted.")
    [retried] = ask(scene, "runs", "retry", run_id)
    assert retried["status"] == "pending"


def test_an_unknown_run_is_a_problem(scene: Scene) -> None:
    dsn = scene.dsn  # type: ignore[attr-defined]
    for verb in ("show", "tail"):
        done = duragraph("runs", verb, UNKNOWN, DATABASE_URL=dsn)
        assert (done.returncode, f"there is no run {UNKNOWN}" in done.stderr) == (1, True)
    for verb in ("cancel", "retry"):
        done = duragraph("runs", verb, UNKNOWN, DATABASE_URL=dsn)
        assert (done.returncode, f"There is no run {UNKNOWN}" in done.stdout) == (1, True)


def test_tail_follows_a_run_that_goes_on(scene: Scene, tmp_path: Path) -> None:
    worker = scene.worker()
    run_id = scene.run(None)
    [claim] = scene.claim(worker)
    with running("runs", "tail", run_id, cwd=tmp_path, DATABASE_URL=scene.dsn) as tail:  # type: ignore[attr-defined]
        for word in ("one", "two"):
            scene.commit(claim, events=[{"event": "custom", "data": word}])
            wait_for(lambda word=word: [d for d in tail.documents if d.get("data") == word], 20, what=word)  # type: ignore[misc]
        scene.commit(claim, end={"status": "success", "output": {}})
        assert tail.process.wait(20) == 0
    assert tail.documents[-1] == {"status": "success"}


def test_top_shows_the_queue(scene: Scene) -> None:
    worker = scene.worker()
    scene.run(None)
    scene.run(None)
    scene.claim(worker)
    seen = ask(scene, "top", "--once")
    assert (seen["queue"][0]["ready"], seen["queue"][0]["running"], len(seen["running"])) == (1, 1, 1)
    assert "counter" in duragraph("top", DATABASE_URL=scene.dsn).stdout  # type: ignore[attr-defined]


# doctor


def levels(examined: dict[str, Any]) -> dict[str, str]:
    return {check["check"]: check["level"] for check in examined["checks"]}


def test_doctor_finds_what_is_wrong(server: Server, fresh_db: str) -> None:
    name = fresh_db.rsplit("/", 1)[1]
    with psycopg.connect(fresh_db, autocommit=True) as connection, server.database("template0") as other:
        connection.execute(f"alter database {name} set synchronous_commit = off")  # type: ignore[arg-type]
        connection.execute(
            "create table duragraph.events_2020w01 partition of duragraph.events for values"
            " from ('016f0000-0000-0000-0000-000000000000') to ('016f1000-0000-0000-0000-000000000000')"
        )
        with connection.transaction():
            connection.execute("create table held (n integer)")
            examined = answer(
                "doctor", "--processes", 1000, "--snapshot-seconds", 0, code=1,
                DATABASE_URL=fresh_db, DURAGRAPH_LISTEN_URL=server.dsn(other),
            )  # fmt: skip
    found = levels(examined)
    assert not examined["ok"]
    assert (found["synchronous_commit"], found["connections"]) == ("fail", "fail")
    assert (found["listen"], found["long snapshots"], found["partitions"]) == ("warn", "warn", "warn")
    assert (found["migrations"], found["clock"]) == ("ok", "ok")
    assert all(check["hint"] for check in examined["checks"] if check["level"] != "ok")


def test_doctor_says_that_nothing_is_installed(empty_db: str) -> None:
    examined = answer("doctor", code=1, DATABASE_URL=empty_db)
    [check] = [check for check in examined["checks"] if check["check"] == "migrations"]
    assert (check["level"], check["hint"]) == ("fail", 'run "duragraph migrate"')
