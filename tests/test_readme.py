"""The README files do not lie: their commands exist, their Python runs, their tables are the code's."""

from __future__ import annotations

import json
import os
import re
import shlex
import shutil
import signal
import socket
import subprocess
import sys
import urllib.error
import urllib.request
from collections.abc import Iterator
from dataclasses import MISSING, fields
from pathlib import Path
from typing import Any

import psycopg
import pytest

from duragraph.config import Settings
from tests.waiting import wait_for

ROOT = Path(__file__).parent.parent
PAGES = [ROOT / "README.md", ROOT / "worker" / "README.md"]
SHOWN_URL = "http://localhost:8081"


def blocks(page: Path, kind: str) -> list[str]:
    """The code blocks of a page whose opening line says `kind`."""
    return re.findall(rf"^```{kind}\n(.*?)^```$", page.read_text(), re.MULTILINE | re.DOTALL)


def indented(page: Path) -> list[str]:
    """The commands of a page: its lines indented by four spaces."""
    return [found[1] for line in page.read_text().splitlines() if (found := re.match(r"    (\S.*)", line))]


RUNNABLE = [
    pytest.param(block, id=f"{page.parent.name}-{number}")
    for page in PAGES
    for number, block in enumerate(blocks(page, "python run"), 1)
]


def test_the_pages_have_examples() -> None:
    assert len(blocks(PAGES[0], "python run")) == 1
    assert len(blocks(PAGES[1], "python run")) >= 6


@pytest.mark.parametrize("block", RUNNABLE)
def test_an_example_runs_as_it_stands(block: str, tmp_path: Path) -> None:
    done = subprocess.run([sys.executable, "-c", block], cwd=tmp_path, capture_output=True, text=True, check=False)

    assert done.returncode == 0, done.stderr


def test_the_start_is_two_commands() -> None:
    start = PAGES[0].read_text().partition("## Start\n")[2].partition("\n## ")[0].partition("```")[0]

    commands = re.findall(r"^    (\S.*)$", start, re.MULTILINE)

    assert commands == ["make demo", "make test"]


def test_every_make_command_is_a_target() -> None:
    targets = set(re.findall(r"^([a-z0-9-]+):.*## ", (ROOT / "Makefile").read_text(), re.MULTILINE))

    named = {found for page in PAGES for found in re.findall(r"\bmake ([a-z][a-z-]+)\b", "\n".join(indented(page)))}

    assert {"demo", "test"} <= named
    assert named <= targets


def test_the_table_of_settings_is_the_code() -> None:
    rows = re.findall(r"^\| `(\w+)` \| (.*?) \| (.*?) \|$", PAGES[0].read_text(), re.MULTILINE)

    assert rows == [
        (setting.metadata["env"], shown(setting.default), setting.metadata["about"]) for setting in fields(Settings)
    ]


def shown(default: object) -> str:
    """A default as the table has it."""
    assert default is not MISSING
    if default == "":
        return ""
    return f"`{str(default).lower() if isinstance(default, bool) else default}`"


def test_every_file_that_is_named_is_there() -> None:
    for page in PAGES:
        text = page.read_text()
        links = [page.parent / link for link in re.findall(r"\]\((?!http)([^)#]+)\)", text)]
        tests = [ROOT / path for path in re.findall(r"`(tests/[\w/.]+)`", text)]
        assert [str(path) for path in [*links, *tests] if not path.exists()] == []


def test_the_questions_to_psql_have_answers(db: psycopg.Connection[Any]) -> None:
    worker = {"worker_id": "w", "graphs": [{"graph_id": "hello"}]}
    db.execute("select duragraph.register_worker(1, %s)", [json.dumps(worker)])
    run = db.execute("select duragraph.submit_run('hello', '{}')").fetchone()
    assert run
    (questions,) = blocks(PAGES[0], "sql")

    asked = re.sub(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}", str(run[0]), questions)

    assert asked != questions
    db.execute(asked.encode())


@pytest.fixture
def hello(tmp_path: Path) -> Iterator[str]:
    """The README's agent served as the README says, on a free port; gives the address."""
    (tmp_path / "agent.py").write_text(blocks(PAGES[0], "python run")[0])
    command = next(line for line in indented(PAGES[0]) if line.startswith("duragraph dev "))
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    program, *rest = shlex.split(command)
    environment = {name: value for name, value in os.environ.items() if name != "DATABASE_URL"}
    server = subprocess.Popen(
        [str(Path(sys.executable).with_name(program)), *rest, "--memory", "--port", str(port)],
        cwd=tmp_path,
        env=environment,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    url = f"http://127.0.0.1:{port}"
    try:
        wait_for(lambda: is_served(url), 60, what="the worker of the README's agent")
        yield url
    finally:
        server.send_signal(signal.SIGINT)
        try:
            server.wait(30)
        finally:
            server.kill()


def is_served(url: str) -> bool:
    """Whether a healthy worker is there."""
    try:
        with urllib.request.urlopen(f"{url}/workers", timeout=5) as answer:
            return any(worker["healthy"] for worker in json.load(answer)["workers"])
    except (urllib.error.URLError, ConnectionError):
        return False


@pytest.mark.slow
def test_the_agent_answers_as_shown(hello: str) -> None:
    shown = json.loads(next(line for line in indented(PAGES[0]) if line.startswith("{")))
    by_sdk = next(block for block in blocks(PAGES[0], "python") if "langgraph_sdk" in block)
    by_curl = next(line for line in indented(PAGES[0]) if line.startswith("curl "))

    told = subprocess.run(
        [sys.executable, "-c", by_sdk.replace(SHOWN_URL, hello)], capture_output=True, text=True, check=True
    )
    assert told.stdout == f"{shown}\n"

    if shutil.which("curl"):
        command = shlex.split(by_curl.replace(SHOWN_URL, hello))
        told = subprocess.run(command, capture_output=True, text=True, check=True)
        assert json.loads(told.stdout) == shown
