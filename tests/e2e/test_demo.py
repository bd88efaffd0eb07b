"""`make demo` as a user's shell runs it: on a small folder, interrupted, and on nothing."""

from __future__ import annotations

import importlib
import os
import re
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parent.parent.parent
DEMO = [sys.executable, str(ROOT / "examples" / "document_agent" / "demo.py")]

DOCUMENTS = {
    "bridges.md": "# Bridges\n\nTrolls live under bridges of stone. A bridge without a troll is called a footbridge.\n",
    "feeding.txt": "A troll is fed once a month. The keeper feeds the trolls with porridge after sunset on Fridays.\n",
    "goats.rst": "Goats\n=====\n\nThree goats cross the bridge every morning. The largest of them goes last.\n",
    "notes/night.md": "Nobody has seen a troll by daylight. Sunlight turns every one of them into stone at once.\n",
    "notes/rules.py": '"""The rules of the bridge, as its keeper wrote them down years ago."""\n\nTOLL = 3\n',
    "notes/schema.sql": "-- One row for each crossing of the bridge, with the hour it was made at.\nselect 1;\n",
    "picture.png": "not text",
}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Six documents, and a file that is none."""
    for name, text in DOCUMENTS.items():
        path = tmp_path / "documents" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return tmp_path / "documents"


def environment(path: Path, temporary: Path) -> dict[str, str]:
    """No key, so that no model is asked; a temporary folder of its own, to see what is left in it."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("OPENAI_", "DEMO_"))}
    temporary.chmod(0o755)
    question = "When does the keeper feed the trolls?"
    return {**kept, "DEMO_PATH": str(path), "DEMO_QUESTION": question, "TMPDIR": str(temporary)}


@pytest.fixture
def temporary() -> Iterator[Path]:
    """Not below tmp_path, which is private: PostgreSQL runs under another account when the tests are root's."""
    with tempfile.TemporaryDirectory(prefix="demo-test-") as name:
        yield Path(name)


def left_behind(temporary: Path, told: str) -> list[str]:
    """What the demo should have stopped or removed: processes that mention its folder or its address, and files."""
    address = re.search(r"http://127\.0\.0\.1:\d+", told)
    marks = [str(temporary), *([address[0]] if address else [])]
    listed = subprocess.run(["ps", "-A", "-ww", "-o", "args="], capture_output=True, text=True, check=True).stdout
    processes = [line for line in listed.splitlines() if any(mark in line for mark in marks)]
    return processes + [str(path) for path in temporary.iterdir()]


@pytest.mark.slow
def test_the_demo_loses_a_worker_and_no_finished_step(folder: Path, temporary: Path) -> None:
    done = subprocess.run(
        DEMO, env=environment(folder, temporary), capture_output=True, text=True, timeout=100, check=False
    )
    told = done.stdout

    assert done.returncode == 0, told + done.stderr
    killed = re.search(r"SIGKILL (reader-\d)", told)
    assert killed
    successor = re.search(r"(reader-\d) has taken over, [\d.]+ s later", told)
    assert successor
    assert successor[1] != killed[1]
    ledger = re.findall(r"^(\d+) +digest +(\S+) +(\d) +(reader-\d)", told, re.MULTILINE)
    assert sorted(document for _, document, _, _ in ledger) == sorted(set(DOCUMENTS) - {"picture.png"})
    assert {(attempt, worker) for _, _, attempt, worker in ledger} == {("1", killed[1]), ("2", successor[1])}
    assert "each finished once" in told
    assert '"The keeper feeds the trolls with porridge after sunset on Fridays." [feeding.txt]' in told
    assert "create -> first event" in told
    assert left_behind(temporary, told) == []


@pytest.fixture
def demo(monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """The demo's module; neither it nor the agent stays imported, as their names are common ones."""
    monkeypatch.syspath_prepend(str(ROOT / "examples" / "document_agent"))
    yield importlib.import_module("demo")
    for name in ("demo", "agent"):
        del sys.modules[name]


ROWS = [
    {"step": 1, "node": "discover", "document": None, "attempt": 1, "worker": "reader-1"},
    {"step": 2, "node": "spread", "document": None, "attempt": 1, "worker": "reader-1"},
    {"step": 3, "node": "digest", "document": "a", "attempt": 1, "worker": "reader-1"},
    {"step": 3, "node": "digest", "document": "b", "attempt": 2, "worker": "reader-2"},
    {"step": 4, "node": "spread", "document": None, "attempt": 2, "worker": "reader-2"},
    {"step": 5, "node": "index", "document": None, "attempt": 2, "worker": "reader-2"},
    {"step": 6, "node": "answer", "document": None, "attempt": 2, "worker": "reader-2"},
]
SEEN = {"documents": ["a", "b"], "killed": "reader-1", "digested": 2, "started": [("a", 1), ("b", 1), ("b", 2)]}


def test_the_proof_holds_where_only_what_was_in_flight_began_again(demo: Any) -> None:
    assert "none of them started again" in demo.prove(ROWS, demo.Watched(**SEEN))


@pytest.mark.parametrize(
    ("rows", "seen"),
    [
        (ROWS, {"started": [*SEEN["started"], ("a", 2)]}),
        (ROWS, {"digested": 3}),
        (ROWS, {"killed": ""}),
        ([*ROWS, ROWS[2]], {}),
        ([*ROWS, ROWS[4]], {}),
        (ROWS[:2] + ROWS[3:], {}),
        (ROWS[:-1], {}),
        ([{**row, "worker": "reader-1"} for row in ROWS], {}),
    ],
    ids=[
        "begun again",
        "streamed twice",
        "no kill",
        "digest twice",
        "node twice",
        "digest gone",
        "node gone",
        "one worker",
    ],
)
def test_the_proof_fails_where_a_step_ran_again_or_is_missing(demo: Any, rows: Any, seen: dict[str, Any]) -> None:
    with pytest.raises(demo.DemoError):
        demo.prove(rows, demo.Watched(**{**SEEN, **seen}))


@pytest.mark.slow
def test_the_commands_it_ends_with_show_the_run(tmp_path: Path, temporary: Path) -> None:
    (tmp_path / "only.md").write_text("The keeper feeds the trolls on Fridays, and nobody else does.\n")
    environ = environment(tmp_path, temporary) | {"PYTHONUNBUFFERED": "1"}

    with subprocess.Popen([*DEMO, "--keep"], cwd=ROOT, env=environ, stdout=subprocess.PIPE, text=True) as demo:
        assert demo.stdout
        told = ""
        for line in demo.stdout:
            told += line
            if line.startswith("Ctrl-C stops"):
                break
        try:
            commands = re.findall(r"^  (?:psql|curl|langgraph-sdk):  (.+)$", told, re.MULTILINE)
            shown = [
                subprocess.run(command, shell=True, cwd=ROOT, capture_output=True, text=True) for command in commands
            ]
        finally:
            demo.send_signal(signal.SIGINT)
        assert demo.wait(30) == 0, told

    assert len(shown) == 3, told
    assert [(one.returncode, one.stderr) for one in (shown[0], shown[2])] == [(0, ""), (0, "")]
    assert all("digest" in one.stdout for one in shown)
    assert all("Fridays" in one.stdout for one in shown[1:])
    assert left_behind(temporary, told) == []


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_an_interrupted_demo_leaves_nothing_behind(folder: Path, temporary: Path, number: signal.Signals) -> None:
    with subprocess.Popen(
        DEMO, env=environment(folder, temporary) | {"PYTHONUNBUFFERED": "1"}, stdout=subprocess.PIPE, text=True
    ) as demo:
        assert demo.stdout
        told = ""
        for line in demo.stdout:
            told += line
            if "question" in line:
                demo.send_signal(number)
        assert demo.wait(30) == 130, told

    assert "reader-1" in told
    assert left_behind(temporary, told) == []


@pytest.mark.parametrize("there", [True, False], ids=["without text files", "absent"])
def test_a_folder_with_nothing_to_read_is_refused_in_one_line(tmp_path: Path, temporary: Path, there: bool) -> None:
    path = tmp_path if there else tmp_path / "nowhere"

    done = subprocess.run(
        DEMO, env=environment(path, temporary), capture_output=True, text=True, timeout=60, check=False
    )

    assert done.returncode == 2
    assert done.stdout == ""
    assert re.fullmatch(r"demo: DEMO_PATH: .*\n", done.stderr)
    assert str(path) in done.stderr
    assert left_behind(temporary, done.stdout) == []
