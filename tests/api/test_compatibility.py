"""The compatibility page tells what is routed and described: no row claims what is not there, none is out of date."""

from __future__ import annotations

import re
from pathlib import Path

import falcon.inspect
import pytest

from duragraph.app import create_app
from duragraph.config import Settings
from duragraph.openapi import document

PAGE = Path(__file__).parents[2] / "docs" / "compatibility.md"
ROW = re.compile(r"^\| `(GET|POST|PUT|PATCH|DELETE) (/\S*)` \| (\w+) \|(.*)\|$")
OFFICIAL = 64
STATES = {"same", "more", "differs", "planned"}


def rows(page: str) -> dict[str, tuple[str, str]]:
    """(state, note) of each operation of the table, by `METHOD /path`."""
    lines = [line for line in section(page, "Operations").splitlines() if line.startswith("| `")]
    table: dict[str, tuple[str, str]] = {}
    for line in lines:
        row = ROW.match(line)
        assert row is not None, f"not | `METHOD /path` | state | note |: {line}"
        method, path, state, note = row.groups()
        table[f"{method} {path.rstrip('/')}"] = (state, note.strip())
    assert len(table) == len(lines), "no operation has two rows"
    return table


def section(page: str, title: str) -> str:
    return page.partition(f"## {title}\n")[2].partition("\n## ")[0]


def unfounded(page: str) -> list[str]:
    """What a page claims and is not routed, or not described."""
    claimed = {one for one, (state, _) in rows(page).items() if state != "planned"}
    return sorted(claimed - set.intersection(*there()))


def there() -> tuple[set[str], set[str]]:
    """(routed, described), as `METHOD /path`."""
    # Nothing is connected to before the application is started.
    app = create_app(Settings(database_url="postgresql://nobody@localhost/nothing"))
    routed = {
        f"{method.method} {route.path}"
        for route in falcon.inspect.inspect_routes(app.falcon)
        for method in route.methods
        if not method.internal
    }
    paths = document(app.deps)["paths"]
    return routed, {f"{method.upper()} {path}" for path, methods in paths.items() for method in methods}


@pytest.fixture
def page() -> str:
    return PAGE.read_text()


def test_the_page_has_every_official_operation(page: str) -> None:
    table = rows(page)
    assert len(table) == OFFICIAL
    assert {state for state, _ in table.values()} <= STATES
    assert [one for one, (state, note) in table.items() if state in ("more", "differs") and not note] == []


def test_what_a_row_claims_is_routed_and_described(page: str) -> None:
    assert unfounded(page) == []


def test_what_is_routed_is_no_longer_planned(page: str) -> None:
    routed, _ = there()
    planned = {one for one, (state, _) in rows(page).items() if state == "planned"}
    assert sorted(planned & routed) == [], f"give these rows of {PAGE.name} their state"


def test_what_newer_sdks_send_is_routed(page: str) -> None:
    routed, described = there()
    named = set(re.findall(r"`((?:GET|POST|PUT|PATCH|DELETE) /\S+)`", section(page, "What newer SDKs send")))
    assert named
    assert sorted(named - routed) == sorted(named - described) == []


@pytest.mark.parametrize(("state", "found"), [("same", ["GET /nowhere"]), ("planned", [])])
def test_a_row_that_claims_what_is_not_there_is_found(page: str, state: str, found: list[str]) -> None:
    assert unfounded(page.replace("| `GET /ok` |", f"| `GET /nowhere` | {state} | |\n| `GET /ok` |")) == found
