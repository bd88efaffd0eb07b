"""Each bench works: at toy size it gives finite figures and leaves the database as it should. Nothing here is timed."""

from __future__ import annotations

import importlib
import json
import math
from pathlib import Path

import pytest

from tests.bench import langgraph_api
from tests.bench.figures import Figure, Target, table, write
from tests.bench.processes import system
from tests.bench.scale import TOY
from tests.postgres import Server


@pytest.mark.parametrize("name", ["sql_path", "claim_latency", "http_path", "idle"])
async def test_a_bench_gives_finite_figures_and_correct_end_states(server: Server, name: str) -> None:
    figures = await importlib.import_module(f"tests.bench.{name}").measure(server, TOY)
    assert figures
    assert [figure.name for figure in figures if not all(map(math.isfinite, [*figure.ours, *figure.peer]))] == []
    assert [figure.name for figure in figures if not figure.name.startswith(f"{name}.")] == []


async def test_two_servers_are_asked_the_same_in_turns(server: Server) -> None:
    with server.database(server.template) as name:
        async with system(server.dsn(name), 1, langgraph_api.OUR_GRAPHS) as running:
            url = str(running.client.base_url)
            figures = await langgraph_api.compare(url, url, TOY)
    assert [figure.name for figure in figures if figure.target] == [
        "langgraph_api.wait.x10", "langgraph_api.first_event.p50",
    ]  # fmt: skip
    *compared, load = figures
    assert all(one > 0 for figure in compared for one in [*figure.ours, *figure.peer])
    assert {len(figure.ours) for figure in figures} == {len(figure.peer) for figure in compared} == {TOY.rounds}
    assert load.name == "langgraph_api.other_load"


def test_a_figure_is_the_median_of_its_rounds_against_the_peers_own() -> None:
    figure = Figure("rate", "runs/s", [80.0, 40.0, 10.0], [100.0, 50.0, 100.0], Target(">=", 0.8))
    shown = figure.as_json()
    assert (shown["ours"], shown["peer"], shown["ratio"]) == (40.0, 100.0, 0.8)
    assert (shown["name"], shown["unit"], shown["target"], shown["met"]) == ("rate", "runs/s", "ratio >= 0.8", True)


def test_a_target_without_its_peer_is_neither_met_nor_missed() -> None:
    assert Figure("rate", "runs/s", [80.0], target=Target(">=", 0.8)).met is None
    assert Figure("p99", "ms", [6.0], target=Target("<=", 5, "ours")).met is False


def test_the_table_and_the_list_hold_every_figure(tmp_path: Path) -> None:
    figures = [Figure("one", "ms", [1.0], target=Target("<=", 5, "ours")), Figure("two", "ms", [2.0], [4.0])]
    write(tmp_path / "build", table(figures), figures)
    assert "| one" in (tmp_path / "build" / "bench.md").read_text()
    assert [one["name"] for one in json.loads((tmp_path / "build" / "bench.json").read_text())] == ["one", "two"]
