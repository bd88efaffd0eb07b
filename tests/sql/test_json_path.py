"""Paths of `extract`: what they find is what a walk finds, and any other text is refused by its code."""

from __future__ import annotations

import json
from typing import Any

import psycopg
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

steady = settings(
    derandomize=True, deadline=None, database=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
key = st.text(st.characters(exclude_characters=".[]\0", exclude_categories=["Cs"]), min_size=1, max_size=8)
leaf = st.none() | st.booleans() | st.integers(-(10**9), 10**9) | key
value = st.recursive(
    leaf, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(key, inner, max_size=3), max_leaves=12
)


@steady
@given(st.data())
def test_a_path_finds_what_a_walk_finds(db: psycopg.Connection[Any], data: st.DataObject) -> None:
    whole = {"values": data.draw(value)}
    path, at = "values", whole["values"]
    while isinstance(at, list | dict) and at and data.draw(st.booleans()):
        step = data.draw(st.sampled_from(sorted(at)) if isinstance(at, dict) else st.integers(-len(at), len(at) - 1))
        path, at = (f"{path}.{step}" if isinstance(at, dict) else f"{path}[{step}]"), at[step]
    [found] = db.execute("select %s::json #> duragraph.json_path(%s)", [json.dumps(whole), path]).fetchone()  # type: ignore[misc]  # one row
    assert found == at


@steady
@given(
    st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]), max_size=30)
    | st.from_regex(r"(values|metadata|x)?[.\[\]a-z0-9-]{0,20}", fullmatch=True)
)
def test_any_text_is_a_path_or_refused(db: psycopg.Connection[Any], text: str) -> None:
    asked = json.dumps({"extract": {"x": text}, "limit": 1})
    refused = None
    try:
        with db.transaction():
            db.execute("select duragraph.search_threads(1, %s)", [asked])
    except psycopg.Error as problem:
        refused = (problem.sqlstate, json.loads(problem.diag.message_detail or "{}").get("code"))
    assert refused in (None, ("DG422", "invalid_path"))
