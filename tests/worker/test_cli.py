"""The command line: what it says and what it exits with; `run` and `new` as a user starts them."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from duragraph_worker.cli import main
from tests.waiting import wait_for
from tests.worker.doubles import Answer, ControlPlaneDouble

COMMAND = [sys.executable, "-m", "duragraph_worker.cli"]
AGENT = """
from duragraph_worker import Graph, entrypoint, node

@Graph(id="one")
class One:
    @entrypoint
    @node
    def count(self, state):
        return {"n": state["n"] + 1}

@Graph(id="two")
class Two:
    @entrypoint
    @node
    def count(self, state):
        return {"n": state["n"] + 2}

class NoGraph: ...
"""


@pytest.fixture
def plane() -> Iterator[ControlPlaneDouble]:
    plane = ControlPlaneDouble()
    yield plane
    plane.stop()


@pytest.fixture
def agent(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    path = tmp_path / "my_agent.py"
    path.write_text(AGENT)
    return path


@pytest.mark.parametrize("target", ["my_agent.py", "my_agent", "my_agent.py:One", "my_agent:One"])
def test_run_serves_the_graphs_of_a_target_until_a_signal(plane: ControlPlaneDouble, agent: Path, target: str) -> None:
    run_id = plane.submit("one", {"n": 1}, temporary=True)
    command = [*COMMAND, "run", target, "--url", plane.url, "--name", "w", "--json"]
    with subprocess.Popen(command, cwd=agent.parent, stderr=subprocess.PIPE, text=True) as process:
        assert plane.wait_ended(run_id, 20)["output"] == {"n": 2}
        registered = [graph["graph_id"] for graph in plane.workers["w"]["graphs"]]
        os.kill(process.pid, signal.SIGTERM)
        _, logged = process.communicate(timeout=20)

    assert process.returncode == 0
    assert registered == (["one"] if ":" in target else ["one", "two"])
    assert plane.deregistered == ["w"]
    lines = [json.loads(line) for line in logged.splitlines()]
    told: dict[str, list[str]] = {"run": [], "worker": []}
    for line in lines:
        told["run" if "run_id" in line else "worker"].append(line["message"])
    assert told == {
        "run": ["run claimed", "run ended"],
        "worker": ["worker registered", "signal received", "worker draining", "worker stopped"],
    }
    assert {line["worker_id"] for line in lines} == {"w"}
    assert {line["run_id"] for line in lines if "run_id" in line} == {run_id}


def test_run_leaves_although_a_plain_function_hangs(plane: ControlPlaneDouble, agent: Path) -> None:
    agent.write_text(AGENT.replace('return {"n": state["n"] + 1}', "import threading; threading.Event().wait(3600)"))
    run_id = plane.submit("one", {"n": 1})
    command = [*COMMAND, "run", str(agent), "--url", plane.url, "--shutdown-timeout", "0.2"]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as process:
        wait_for(lambda: plane.held, 20, what="the run to be claimed")
        os.kill(process.pid, signal.SIGINT)
        assert plane.wait_ended(run_id) == {"status": "release"}
        _, logged = process.communicate(timeout=20)

    assert process.returncode == 0
    assert "serving one, two for http" in logged
    assert f"run handed back run_id={run_id} worker_id=" in logged


@pytest.mark.parametrize(
    ("target", "fault"),
    [
        ("nowhere.py", "there is no file"),
        ("nowhere:One", 'there is no module "nowhere"'),
        ("my_agent.py:Three", 'has no "Three"; its graphs: One, Two'),
        ("my_agent.py:NoGraph", '"NoGraph" is no graph; decorate the class'),
        ("empty.py", "there is no graph in it"),
        ("broken.py", "broken.py cannot be loaded: ZeroDivisionError: division by zero"),
        ("missing.py", "missing.py cannot be loaded: ModuleNotFoundError: No module named 'nowhere_at_all'"),
        ("missing", "missing cannot be loaded: ModuleNotFoundError: No module named 'nowhere_at_all'"),
    ],
)
def test_a_target_that_names_no_graph_is_explained(
    agent: Path, target: str, fault: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "path", list(sys.path))
    for name, text in {"empty": "x = 1", "broken": "x = 1\ny = x / 0", "missing": "import nowhere_at_all"}.items():
        (agent.parent / f"{name}.py").write_text(text)
        monkeypatch.delitem(sys.modules, name, raising=False)
    monkeypatch.delitem(sys.modules, "my_agent", raising=False)

    assert main(["run", target, "--url", "http://127.0.0.1:1"]) == 2

    said = capsys.readouterr().err
    assert fault in said
    assert ("y = x / 0" in said) == (target == "broken.py")
    assert "Traceback" not in said


def test_two_graphs_of_one_id_are_refused(agent: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (agent.parent / "other_agent.py").write_text(AGENT.replace('"two"', '"three"'))

    assert main(["run", "my_agent.py", "other_agent.py", "--url", "http://127.0.0.1:1"]) == 2
    assert 'two graphs have the id "one"' in capsys.readouterr().err


def test_a_refusal_of_the_control_plane_is_said_and_fails(
    plane: ControlPlaneDouble, agent: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    plane.before("workers", Answer(422, {"detail": "graphs.0.graph_id is too long"}))

    assert main(["run", "my_agent.py", "--url", plane.url]) == 1
    assert "refused this worker: POST /workers: 422 graphs.0.graph_id is too long" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "fault"),
    [
        (["run", "my_agent.py", "--url", "localhost:8081"], "is not the address of a control plane"),
        (["run", "my_agent.py", "--name", "a/b"], "cannot name a worker"),
    ],
)
def test_settings_that_cannot_be_are_explained(
    agent: Path, arguments: list[str], fault: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(arguments) == 2
    assert fault in capsys.readouterr().err


@pytest.mark.parametrize("arguments", [[], ["run"], ["run", "x.py", "--max-concurrent-runs", "0"], ["walk"]])
def test_misuse_exits_with_2(arguments: list[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        main(arguments)
    assert caught.value.code == 2


def test_a_new_project_passes_its_own_test_and_serves(
    plane: ControlPlaneDouble, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("MODEL", raising=False)

    assert main(["new", "my-agent"]) == 0

    assert "pytest" in capsys.readouterr().out
    project = tmp_path / "my-agent"
    assert sorted(path.name for path in project.iterdir()) == [
        "README.md",
        "agent.py",
        "pyproject.toml",
        "test_agent.py",
    ]
    subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider"], cwd=project, check=True, timeout=60
    )
    run_id = plane.submit("my_agent", {"question": "What does the control plane keep?"}, temporary=True)
    command = [*COMMAND, "run", "agent.py", "--url", plane.url]
    with subprocess.Popen(command, cwd=project, stderr=subprocess.DEVNULL) as process:
        end: dict[str, Any] = plane.wait_ended(run_id, 20)
        os.kill(process.pid, signal.SIGTERM)
    assert "The control plane keeps every step" in end["output"]["answer"]


@pytest.mark.parametrize(
    ("name", "fault"),
    [("taken", "is there already"), ("1st", "cannot name a project"), ("...", "cannot name a project")],
)
def test_a_project_that_cannot_be_made_is_explained(
    name: str, fault: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "taken").mkdir()
    (tmp_path / "taken" / "file").write_text("mine")

    assert main(["new", name]) == 2
    assert fault in " ".join(capsys.readouterr().err.split())
    assert [path.name for path in tmp_path.rglob("*")] == ["taken", "file"]
