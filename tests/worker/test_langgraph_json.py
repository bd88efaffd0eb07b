"""What `duragraph-worker run` makes of LangGraph targets and of a langgraph.json."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from duragraph_worker.hosting.graphs import LangGraphGraph
from duragraph_worker.langgraph_json import read_config
from duragraph_worker.loading import TargetError, load_graphs
from tests.waiting import wait_for
from tests.worker.doubles import ControlPlaneDouble

AGENT = """
from typing_extensions import TypedDict
from langgraph.graph import START, StateGraph
import helping

class State(TypedDict, total=False):
    n: int

def count(state):
    return {"n": state["n"] + helping.STEP}

builder = StateGraph(State).add_node("count", count).add_edge(START, "count")
graph = builder.compile(name="counting")

def make(config):
    return builder

value = 5
"""


@pytest.fixture
def project(tmp_path: Path) -> Path:
    (tmp_path / "src").mkdir()
    (tmp_path / "src" / "helping.py").write_text("import os\nSTEP = int(os.environ['STEP_OF_TEST'])\n")
    (tmp_path / "lg_agent.py").write_text(AGENT)
    (tmp_path / ".env").write_text('# for the graph\nexport STEP_OF_TEST="2"\n')
    config = {
        "dependencies": [".", "./src"],
        "env": ".env",
        "graphs": {"agent": "./lg_agent.py:graph", "made": {"path": "./lg_agent.py:make"}},
    }
    (tmp_path / "langgraph.json").write_text(json.dumps(config))
    return tmp_path


def test_a_config_names_graphs_and_prepares_their_environment(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("STEP_OF_TEST", raising=False)
    monkeypatch.setattr(sys, "path", list(sys.path))
    named = read_config(str(project / "langgraph.json"))
    loaded = [graph for name, target in named for graph in load_graphs(target, name)]
    monkeypatch.delenv("STEP_OF_TEST")
    assert all(isinstance(graph, LangGraphGraph) for graph in loaded)
    assert [graph.graph_id for graph in loaded if isinstance(graph, LangGraphGraph)] == ["agent", "made"]


def test_a_target_is_served_under_its_name_or_the_one_before_it(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("STEP_OF_TEST", "1")
    monkeypatch.setattr(sys, "path", [str(project / "src"), *sys.path])
    place = f"{project / 'lg_agent.py'}:graph"
    ids = [one.graph_id for target in (place, f"mine={place}") for one in load_graphs(target)]  # type: ignore[union-attr]  # hosted
    assert ids == ["graph", "mine"]
    every = load_graphs(str(project / "lg_agent.py"))
    assert [one.graph_id for one in every if isinstance(one, LangGraphGraph)] == ["graph"]
    with pytest.raises(TargetError, match="is no graph"):
        load_graphs(f"{project / 'lg_agent.py'}:value")


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("{", "is not JSON"),
        ("[]", "must be an object"),
        ("{}", 'has no "graphs"'),
        ('{"graphs": {"a": 5}}', 'the graph "a" names no file'),
        ('{"graphs": {"a": "./a.py:g"}, "env": "gone.env"}', 'there is no env file "gone.env"'),
    ],
)
def test_a_config_that_cannot_be_meant_is_explained(tmp_path: Path, text: str, said: str) -> None:
    (tmp_path / "langgraph.json").write_text(text)
    with pytest.raises(TargetError, match=said):
        read_config(str(tmp_path / "langgraph.json"))


def test_a_config_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(TargetError, match=r"langgraph\.json: No such file"):
        read_config(str(tmp_path / "langgraph.json"))


@pytest.fixture
def plane() -> Iterator[ControlPlaneDouble]:
    plane = ControlPlaneDouble()
    yield plane
    plane.stop()


def test_run_serves_the_graphs_of_a_config(plane: ControlPlaneDouble, project: Path) -> None:
    command = [sys.executable, "-m", "duragraph_worker.cli", "run", "--config", str(project / "langgraph.json")]
    with subprocess.Popen([*command, "--url", plane.url], env=dict(os.environ), stderr=subprocess.PIPE) as process:
        try:
            (worker,) = wait_for(lambda: list(plane.workers.values()), 30, what="the registration")
            graphs = {graph["graph_id"]: graph for graph in worker["graphs"]}
            assert set(graphs) == {"agent", "made"}
            assert [node["id"] for node in graphs["made"]["definition"]["nodes"]] == ["count"]
            run = plane.submit("agent", {"n": 1}, temporary=True)
            end = plane.wait_ended(run, 30)
            assert (end["status"], end["output"]) == ("success", {"n": 3})
        finally:
            process.send_signal(signal.SIGTERM)
            process.communicate(timeout=20)
