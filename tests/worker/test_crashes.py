"""A crash after any write: the same end, and nothing recorded runs again."""

from __future__ import annotations

from collections import Counter
from typing import Any

import pytest

from duragraph_worker.testing import Scenario, crash_everywhere, play
from tests.worker.scenarios import (
    SCENARIOS,
    done,
)


@pytest.fixture(autouse=True)
def _nothing_done_yet():
    done.clear()


def rows(played: Scenario) -> list[tuple[str, str]]:
    """The ledger: what finished, each once. A second row of the same task is refused where it is recorded."""
    return sorted((row["name"], row["key"]) for row in played.ledger)


@pytest.mark.parametrize("scenario", SCENARIOS)
async def test_a_crash_after_any_write_ends_in_the_same_state_and_repeats_nothing_recorded(scenario: str):
    graph, calls = SCENARIOS[scenario]
    report = await crash_everywhere(graph, calls)
    assert len(report.crashed) >= 1
    assert report.undisturbed.results[-1].status == "success"
    assert report.final_states_differ == []
    for crashed in report.crashed:
        assert [r.status for r in crashed.results] == [r.status for r in report.undisturbed.results]
        assert rows(crashed) == rows(report.undisturbed)


@pytest.mark.parametrize(
    ("graph", "calls"),
    [SCENARIOS[name] for name in ("linear", "router loop", "human")],
    ids=["linear", "router loop", "human"],
)
async def test_side_effects_happen_once_when_the_crash_comes_after_their_record(graph: Any, calls: Any):
    await play(graph(), calls)
    once = Counter(done)
    for n in range(1, 100):
        done.clear()
        played = await play(graph(), calls, crash_at=n)
        # One thing at a time: whatever was done before the crash is in the write that was the last.
        assert done == once, f"crash after write {n}"
        if played.writes < n:
            break
