"""What parses text from outside takes any text: it gives a value in its bounds, or an error with a stable code."""

from __future__ import annotations

import time
from collections.abc import Callable
from datetime import UTC, datetime
from typing import TypeVar
from uuid import UUID

import falcon.asgi
import falcon.testing
from hypothesis import assume, example, given, settings
from hypothesis import strategies as st

from duragraph.api import stream, thread_stream
from duragraph.api.stream import Cursor, Run
from duragraph.errors import Invalid
from duragraph.schedules import parse

T = TypeVar("T")

NOW = datetime(2026, 2, 28, 23, 59, 30, tzinfo=UTC)
BOUND_SECONDS = 3.0
"""For one schedule, on a machine with much else to do; the longest takes about a tenth of it."""

steady = settings(derandomize=True, deadline=None, database=None)


def outcome(read: Callable[[], T]) -> T | Invalid:
    """What was read, or why not."""
    try:
        return read()
    except Invalid as problem:
        return problem


def is_bad_cursor(problem: Invalid) -> bool:
    return (problem.code, problem.field, bool(problem.hint)) == ("invalid_cursor", "Last-Event-ID", True)


ids = st.one_of(
    st.text(max_size=40),
    st.from_regex(r"-?[0-9]{0,20}-?[0-9]{0,20}", fullmatch=True),
    st.text("0123456789-+_ .eE²٣", max_size=30),
)
runs = st.uuids().map(lambda run_id: Run(run_id, UUID(int=0), resumable=True))


@steady
@given(ids, runs)
@example("٣-٣", Run(UUID(int=1), UUID(int=0), resumable=True))
def test_a_cursor_of_a_run_is_in_bounds_or_refused(text: str, run: Run) -> None:
    cursor = outcome(lambda: stream.parse_cursor(text, run))
    assert is_bad_cursor(cursor) if isinstance(cursor, Invalid) else 0 <= cursor.seq < 2**31


@steady
@given(st.integers(1, 2**31 - 1), runs)
def test_an_event_id_is_read_as_it_was_written(seq: int, run: Run) -> None:
    assume(run.run_id.int >> 80 < 10**15)
    assert stream.parse_cursor(run.event_id(seq), run) == Cursor(seq, fresh=False)


@steady
@given(ids.filter(lambda text: "\n" not in text and text.isascii()))
def test_a_cursor_of_a_thread_is_in_bounds_or_refused(text: str) -> None:
    scope = falcon.testing.create_scope(headers={"Last-Event-ID": text})
    cursor = outcome(lambda: thread_stream.parse_cursor(falcon.asgi.Request(scope, _nothing)))
    if isinstance(cursor, Invalid):
        assert is_bad_cursor(cursor)
    else:
        assert cursor is None or (0 <= cursor.ms < 2**48 and 0 <= cursor.seq < 2**31)


async def _nothing() -> dict[str, str]:
    return {"type": "http.disconnect"}


number = st.integers(0, 99).map(str)
name = st.sampled_from(["jan", "FEB", "mon", "sun", "l", "?", "*", "h", "r", "5l", "l3", "2#3", "sun#5", "15w", "lw"])
piece = st.one_of(
    number,
    name,
    st.builds("{}-{}".format, number, number),
    st.builds("*/{}".format, number),
    st.builds("{}-{}/{}".format, number, number, number),
)
field = st.lists(piece, min_size=1, max_size=3).map(",".join)
schedules = st.one_of(
    st.lists(field, min_size=4, max_size=7).map(" ".join),
    st.tuples(number, number, st.integers(1, 31).map(str), st.integers(1, 12).map(str), piece).map(" ".join),
    st.text("0123456789*,/-#?lLwWhHrR@ \tamonju\x00²", max_size=60),
    st.text(max_size=30),
)
zones = st.sampled_from([None, "UTC", "Europe/Berlin", "America/St_Johns", "Australia/Lord_Howe", "Antarctica/Troll"])
moments = st.integers(630_000_000, 3_780_000_000).map(lambda seconds: datetime.fromtimestamp(seconds, UTC))


@settings(steady, max_examples=300)
@given(schedules, zones, moments)
@example("59 23 29 2 0", None, NOW)
@example("0 0 31 2 *", "Europe/Berlin", NOW)
@example("0 0 31 4,6,9,11,2 *", None, NOW)
@example("0-59/1 0-23/1 1-31/1 1-12/1 0-6/1", None, NOW)
def test_a_schedule_ticks_later_or_is_refused_within_bounds(expression: str, zone: str | None, now: datetime) -> None:
    began = time.monotonic()
    tick = outcome(lambda: parse(expression, zone).next_after(now))
    if isinstance(tick, Invalid):
        assert (tick.code, tick.field, bool(tick.hint)) == ("invalid_schedule", "schedule", True)
    else:
        assert tick > now
        assert (tick.second, tick.microsecond) == (0, 0)
    assert time.monotonic() - began < BOUND_SECONDS


@steady
@given(st.one_of(st.text(max_size=70), st.text("AEUTC/._-+0123456789", max_size=70)))
@example("../../etc/passwd")
@example("UTC\x00")
@example("Europe")
def test_a_time_zone_is_known_or_refused(zone: str) -> None:
    tick = outcome(lambda: parse("0 0 * * *", zone).next_after(NOW))
    if isinstance(tick, Invalid):
        assert (tick.code, tick.field) == ("invalid_timezone", "timezone")
    else:
        assert tick > NOW
