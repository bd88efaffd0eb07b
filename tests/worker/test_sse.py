"""Frames are read whatever they are cut into, and no line of a stream does harm."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from duragraph_worker.sse import FrameParser, StreamPart, read_lines

steady = settings(derandomize=True, deadline=None, database=None)

word = st.text(st.characters(exclude_characters="\r\n", exclude_categories=["Cs"]), max_size=20)
value = st.recursive(
    st.none() | st.booleans() | st.integers() | word,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(word, inner, max_size=3),
    max_leaves=10,
)
event_name = word.filter(lambda text: not text.startswith(" ") and text != "")
event_id = st.none() | event_name.filter(lambda text: "\0" not in text)
frames = st.lists(st.builds(StreamPart, event_name, value, event_id), max_size=5)


async def pieces(text: str, cuts: list[int]) -> AsyncIterator[str]:
    """The text, cut at these places."""
    places = sorted({cut % (len(text) + 1) for cut in cuts})
    for start, end in zip([0, *places], [*places, len(text)], strict=True):
        yield text[start:end]


async def parts(text: str, cuts: list[int]) -> list[StreamPart]:
    parser = FrameParser()
    return [part async for line in read_lines(pieces(text, cuts)) if (part := parser.feed(line)) is not None]


def written(frame: StreamPart, end: str, spaced: bool) -> str:
    """A frame as a server writes it, its data over several lines, with a heartbeat before it."""
    colon = ": " if spaced else ":"
    data = json.dumps(frame.data, ensure_ascii=False, indent=1).split("\n")
    lines = [": heartbeat", "", f"event{colon}{frame.event}", *(f"data{colon}{line}" for line in data)]
    lines += [] if frame.id is None else [f"id{colon}{frame.id}"]
    return "".join(line + end for line in [*lines, ""])


@steady
@given(frames, st.sampled_from(["\n", "\r\n", "\r"]), st.booleans(), st.lists(st.integers(0, 10_000), max_size=8))
def test_frames_come_as_they_were_written(sent: list[StreamPart], end: str, spaced: bool, cuts: list[int]) -> None:
    text = "".join(written(frame, end, spaced) for frame in sent)
    # A lone CR is known to end the line only by what follows it.
    assert asyncio.run(parts(text, cuts)) == sent


@steady
@given(st.lists(st.one_of(word, st.builds("{}:{}".format, st.sampled_from(["retry", "id", "event", ""]), word))))
@example(["retry: ²"])
@example(["retry: ٣"])
@example(["retry: " + "9" * 5000])
@example(["retry: " + "9" * 400])
def test_lines_without_data_never_raise(lines: list[str]) -> None:
    parser = FrameParser()
    for line in lines:
        if not line.startswith("data"):
            parser.feed(line)
    assert parser.retry_seconds is None or 0 <= parser.retry_seconds < 10**7
    assert parser.last_id is None or "\0" not in parser.last_id


@pytest.mark.parametrize("data", ["{", "nothing", "[" * 100_000, "\ud800x", '{"a":'])
def test_data_that_is_no_json_is_a_value_error_and_the_next_frame_is_read(data: Any) -> None:
    parser = FrameParser()
    parser.feed(f"data: {data}")
    with pytest.raises(ValueError):  # noqa: PT011  # the reader of the stream matches no more than the type
        parser.feed("")
    parser.feed("data: 1")
    assert parser.feed("") == StreamPart("message", 1)
