"""The black-box suite of the LangGraph API, and the official JavaScript client, against a server and its worker.

The suite is tests/conformance/, a project of its own that knows no server; it is run here as its README says.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from xml.etree import ElementTree

import httpx
import pytest

from tests.postgres import Server
from tests.waiting import wait_for

ROOT = Path(__file__).parents[2]
SUITE = ROOT / "tests" / "conformance"

# Who serves the graphs of tests/conformance/graphs/GRAPHS.md; `make conformance HOSTED=native` chooses.
WORKERS = {
    "native": ["run", str(ROOT / "tests" / "worker" / "toy_graphs.py")],
    "langgraph": ["run", "--config", str(SUITE / "graphs" / "langgraph.json")],
}
HOSTED = (os.environ.get("HOSTED") or ",".join(WORKERS)).split(",")
# Not wanted in any round: it needs a second server, with rules of its own.
LEFT_OUT = {"set LG_AUTH_URL"}
# Once is enough to wait up to a minute for a cron.
WITHOUT_CRONS = {"slow: set LG_SLOW=1"}

pytestmark = [pytest.mark.timeout(900), pytest.mark.xdist_group("conformance")]


def environment(**more: str) -> dict[str, str]:
    """This one, without what the person who runs the tests has set up."""
    others = ("DURAGRAPH_", "LANGCHAIN_", "LANGGRAPH_", "LANGSMITH_", "LG_", "PG", "PYTEST_")
    return {name: value for name, value in os.environ.items() if not name.startswith(others)} | more


@contextmanager
def process(said: Path, *command: str, **more: str) -> Iterator[subprocess.Popen[bytes]]:
    """A process that writes to a file, stopped in order at the end."""
    with said.open("wb") as words:
        running = subprocess.Popen(
            [sys.executable, "-m", *command], stdout=words, stderr=words, env=environment(**more), cwd=ROOT
        )
    try:
        yield running
    finally:
        running.terminate()
        try:
            running.wait(30)
        except subprocess.TimeoutExpired:
            running.kill()
            running.wait()


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@pytest.fixture(scope="session", params=HOSTED)
def hosted(request: pytest.FixtureRequest) -> str:
    """Whose graphs these are."""
    return str(request.param)


@pytest.fixture(scope="session")
def served(hosted: str, server: Server, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The address of `duragraph serve`, with a database and a worker of its own."""
    folder, port = tmp_path_factory.mktemp("conformance"), free_port()
    url = f"http://127.0.0.1:{port}"
    with ExitStack() as stack:
        dsn = server.dsn(stack.enter_context(server.database(server.template)))
        processes = [
            stack.enter_context(process(folder / name, *command, **more))
            for name, command, more in (
                (
                    "server.log",
                    ["duragraph.cli", "serve", "--port", str(port)],
                    {"DATABASE_URL": dsn, "DURAGRAPH_AWAIT_WORKERS": "1", "DURAGRAPH_WEBHOOK_ALLOW_LOOPBACK": "1"},
                ),
                (
                    "worker.log",
                    ["duragraph_worker.cli", *WORKERS[hosted], "--url", url, "--max-concurrent-runs", "20"],
                    {"PYTHONPATH": str(ROOT)},
                ),
            )
        ]

        def ready() -> bool:
            ended = [one.args for one in processes if one.poll() is not None]
            said = "".join(path.read_text() for path in sorted(folder.glob("*.log")))
            assert not ended, f"{ended[0]} has ended:\n{said[-4000:]}"
            try:
                return httpx.get(f"{url}/ok").status_code == 200
            except httpx.TransportError:
                return False

        wait_for(ready, 60, what="a server with a worker")
        yield url


@pytest.mark.parametrize("mount", ["", "/api/v1"], ids=["at the root", "under a prefix"])
def test_the_suite_passes(served: str, hosted: str, mount: str, tmp_path: Path) -> None:
    slow = hosted == HOSTED[0] and not mount
    report = tmp_path / "report.xml"
    command = ["pytest", "public", "-n", "4", "--tb=short", "-rfE", f"--junitxml={report}"]
    done = subprocess.run(
        [sys.executable, "-m", *command],
        cwd=SUITE,
        env=environment(LG_URL=served + mount, **({"LG_SLOW": "1"} if slow else {})),
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, f"against {served}{mount}:\n{done.stdout}{done.stderr}"
    skipped = {str(one.get("message")) for one in ElementTree.parse(report).iter("skipped")}
    assert skipped <= LEFT_OUT | (set() if slow else WITHOUT_CRONS)


@pytest.fixture(scope="session")
def npm() -> str:
    """The path of npm; without it the test fails in continuous integration and is left out elsewhere."""
    found = shutil.which("npm") if shutil.which("node") else None
    if found is None:
        leave = pytest.fail if os.environ.get("CI") else pytest.skip
        leave("node and npm are not installed, so the JavaScript client was not tried; install nodejs and npm")
    return found


@pytest.mark.parametrize("line", ["1.x", "2.x"])
def test_the_javascript_client_finds_its_way(served: str, npm: str, line: str) -> None:
    done = subprocess.run(
        ["node", "check.mjs", served], cwd=installed(npm, line), env=environment(), capture_output=True, text=True,
        check=False,
    )  # fmt: skip
    assert done.returncode == 0, f"{line} against {served}:\n{done.stdout}{done.stderr}"
    assert done.stdout.rstrip().endswith(" passed, 0 failed"), done.stdout


def installed(npm: str, line: str) -> Path:
    """The check beside that line of the client, in a folder that is kept between sessions."""
    sources = [SUITE / "js" / "check.mjs", *sorted((SUITE / "js" / line).iterdir())]
    mark = hashlib.sha256(b"".join(source.read_bytes() for source in sources)).hexdigest()[:12]
    folder = ROOT / "build" / f"langgraph-sdk-js-{line}-{mark}"
    if not (folder / ".done").exists():
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
        for source in sources:
            shutil.copy(source, folder)
        quietly = ["--no-audit", "--no-fund", "--no-update-notifier", "--ignore-scripts"]
        done = subprocess.run([npm, "ci", *quietly], cwd=folder, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stdout + done.stderr
        (folder / ".done").touch()
    return folder
