"""The provider without a model: it quotes the right sentence, the same one every time, and says what it is."""

from __future__ import annotations

from typing import Any

import pytest

from duragraph_worker.llm import BadRequest, LLMRequest, get_provider
from duragraph_worker.llm.extractive import MODEL, NOTHING_FOUND, split_sentences

TROLLS = """\
# Trolls

[trolls.md]

Trolls live under bridges, e.g. the old one. They come out at night!
Most of them eat goats.

[goats.md]

- Goats cross the bridges by day.
- Goats fear trolls, and so do kings.

```python
bridges = "no sentence at all."
```

| bridges | table |
"""


def ask(text: str, *, system: str | None = None, **extra: Any) -> LLMRequest:
    return LLMRequest([{"role": "user", "content": text}], "extractive", system=system, extra=extra)


async def chat(request: LLMRequest) -> str:
    provider, _ = get_provider("extractive")
    return (await provider.chat(request)).content


async def test_an_answer_quotes_the_best_sentences_with_their_sources() -> None:
    content = await chat(ask(f"{TROLLS}\n\nQuestion: When do goats cross bridges?", sentences=2))

    assert content.splitlines()[0] == '"Goats cross the bridges by day." [goats.md]'
    assert len(content.splitlines()) == 2


@pytest.mark.parametrize(
    "messages",
    [
        [{"role": "user", "content": f"Question: Who eats a goat?\n\n{TROLLS}"}],
        [{"role": "user", "content": f"{TROLLS}\n\nWho eats a goat?"}],
        [{"role": "user", "content": TROLLS}, {"role": "user", "content": "Who eats a goat?"}],
        [{"role": "user", "content": [{"type": "text", "text": f"{TROLLS}\n\nWho eats a goat?"}]}],
    ],
)
async def test_the_question_is_found_wherever_it_stands(messages: list[dict[str, Any]]) -> None:
    content = await chat(LLMRequest(messages, "extractive", extra={"sentences": 1}))

    assert content == '"Most of them eat goats." [trolls.md]'


async def test_what_the_text_does_not_say_is_not_made_up() -> None:
    assert await chat(ask(f"{TROLLS}\n\nQuestion: What does a volcano weigh?")) == NOTHING_FOUND
    assert await chat(ask("Question: Anything?")) == NOTHING_FOUND
    assert await chat(LLMRequest([], "extractive")) == ""


async def test_without_a_question_it_gives_a_digest_in_the_order_of_the_text() -> None:
    content = await chat(ask(TROLLS, sentences=3))

    parts = [sentence.text for sentence in split_sentences(TROLLS) if sentence.text in content]
    assert " ".join(parts) == content
    assert len(parts) == 3


async def test_it_streams_the_same_answer_word_by_word_and_says_what_it_is() -> None:
    provider, model = get_provider("extractive")
    request = ask(f"{TROLLS}\n\nWho eats a goat?")
    *words, last = [chunk async for chunk in provider.stream(request)]

    assert model == "extractive"
    assert last.response == await provider.chat(request)
    assert last.response is not None
    assert "".join(word.content for word in words) == last.response.content
    assert len(words) > 3
    assert last.response.model == MODEL
    assert "no language model" in MODEL
    assert last.response.usage.output_tokens == len(words)


async def test_the_limit_counts_words() -> None:
    request = LLMRequest([{"role": "user", "content": TROLLS}], "extractive", max_tokens=4)

    assert len((await chat(request)).split()) == 4


async def test_a_format_is_refused() -> None:
    request = LLMRequest([{"role": "user", "content": "x"}], "extractive", response_format={"type": "json_object"})

    with pytest.raises(BadRequest, match="cannot give a format"):
        await chat(request)


def test_sentences_are_split_as_a_reader_would() -> None:
    assert [(sentence.text, sentence.source) for sentence in split_sentences(TROLLS)] == [
        ("Trolls live under bridges, e.g. the old one.", "trolls.md"),
        ("They come out at night!", "trolls.md"),
        ("Most of them eat goats.", "trolls.md"),
        ("Goats cross the bridges by day.", "goats.md"),
        ("Goats fear trolls, and so do kings.", "goats.md"),
    ]
