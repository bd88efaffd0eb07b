"""An answer without a language model: the sentences of the given text that fit the question best, word for word.

Deterministic, offline and free: for demonstrations, tests and as a last fallback. It never invents anything, and its
model name says what it is.
"""

from __future__ import annotations

import asyncio
import math
import re
from collections import Counter
from collections.abc import AsyncGenerator, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from duragraph_worker.llm import LLMChunk, LLMRequest, LLMResponse, Usage
from duragraph_worker.llm.errors import BadRequest

MODEL = "extractive (no language model: quotes the best sentences by BM25)"
NOTHING_FOUND = "The given text says nothing about this."

_SENTENCES = 3
# BM25 as in Robertson and Zaragoza, "The Probabilistic Relevance Framework" (2009): usual values of its two constants.
_K1 = 1.5
_B = 0.75

_WORD = re.compile(r"[^\W_]+(?:['\N{RIGHT SINGLE QUOTATION MARK}][^\W_]+)?")
_TOKEN = re.compile(r"\s*\S+")
_SENTENCE_END = re.compile(r"(?<=[.!?])[\"')\]]*\s+(?=[\"'(\[]?[A-Z0-9\u00c0-\u024f`*])")
_QUESTION = re.compile(r"^\s*question\s*:\s*(.+?)(?:\n\s*\n|\Z)", re.IGNORECASE | re.MULTILINE | re.DOTALL)
_SOURCE = re.compile(
    r"^(?:\[(?P<bracket>[^\[\]\n]+)\]|(?:source|file|document)\s*:\s*(?P<label>.+?))\s*$", re.IGNORECASE
)
_FURNITURE = re.compile(r"^\s*(?:```|\||[-=*_#]{3,}\s*$|<[^>]+>\s*$)")
_STOP = frozenset(
    _WORD.findall(
        "a about an and are as at be by can did do does for from had has have how i in into is it its me my not of on "
        "or our so than that the their them then there these they this to was we were what when where which who whom "
        "whose why will with would you your"
    )
)


@dataclass(frozen=True)
class Sentence:
    """One sentence of the text, where it came from (None: nothing said so) and its words, lower case and stemmed."""

    text: str
    source: str | None
    words: tuple[str, ...]


class ExtractiveProvider:
    """Answers the last user message.

    With a question (a paragraph "Question: ...", else a last paragraph that ends in "?") the rest of the messages is
    the text, and the answer quotes its best sentences, best first; a line "[name]" or "Source: name" in the text names
    the source of what follows, and is put behind the quote. Without a question the answer is a digest: the most telling
    sentences in their order. `extra`: "sentences" (3), "delay" (0; seconds between streamed tokens).
    """

    name = "extractive"

    def __init__(self, base_url: str | None = None) -> None:
        """`base_url` is there because every provider takes one; nothing is asked over a network."""

    async def chat(self, request: LLMRequest) -> LLMResponse:
        """The whole answer. Raises `BadRequest` where a format is asked for."""
        return await asyncio.to_thread(_answer, request)

    async def stream(self, request: LLMRequest) -> AsyncGenerator[LLMChunk, None]:
        """The answer word by word, then the whole of it."""
        response = await self.chat(request)
        delay = float(request.extra.get("delay", 0))
        for token in _TOKEN.findall(response.content):
            yield LLMChunk(content=token)
            await asyncio.sleep(delay)
        yield LLMChunk(response=response)


def digest(text: str, sentences: int = _SENTENCES) -> str:
    """The `sentences` most telling sentences of a text, in their order."""
    found = split_sentences(text)
    weights = _rarity(found)
    frequency = Counter(word for sentence in found for word in sentence.words)
    # A telling sentence says what the text says often, in words that not every sentence has; long ones gain nothing.
    value = {word: math.log1p(count) * weights[word] for word, count in frequency.items()}
    scores = [sum(value[word] for word in set(one.words)) / math.sqrt(len(one.words)) for one in found]
    best = sorted(sorted(range(len(found)), key=lambda i: (-scores[i], i))[:sentences])
    return " ".join(found[i].text for i in best)


def answer(question: str, text: str, sentences: int = _SENTENCES) -> str:
    """The sentences of `text` that fit the question best, best first, each quoted and with its source if known."""
    quotes = [
        f'"{sentence.text}"' + (f" [{sentence.source}]" if sentence.source else "")
        for sentence in rank(question, split_sentences(text))[:sentences]
    ]
    return "\n".join(quotes) if quotes else NOTHING_FOUND


def rank(question: str, sentences: Sequence[Sentence]) -> list[Sentence]:
    """The sentences that share a word with the question, best first; equal ones in their order."""
    asked = set(_words(question))
    weights = _rarity(sentences)
    mean = sum(len(sentence.words) for sentence in sentences) / max(1, len(sentences))
    scored = []
    for index, sentence in enumerate(sentences):
        score = sum(
            weights[word] * count * (_K1 + 1) / (count + _K1 * (1 - _B + _B * len(sentence.words) / mean))
            for word, count in Counter(sentence.words).items()
            if word in asked
        )
        if score > 0:
            scored.append((-score, index, sentence))
    return [sentence for _, _, sentence in sorted(scored, key=lambda item: item[:2])]


def split_sentences(text: str) -> list[Sentence]:
    """The sentences of prose or Markdown, each once; code, tables, rules and one-word headings are left out."""
    sentences: dict[str, Sentence] = {}
    source: str | None = None
    for block in _blocks(text):
        if named := _SOURCE.match(block):
            source = named["bracket"] or named["label"]
            continue
        for part in _SENTENCE_END.split(block):
            words = tuple(_words(part))
            if len(words) > 1 and part not in sentences:
                sentences[part] = Sentence(part, source, words)
    return list(sentences.values())


def _answer(request: LLMRequest) -> LLMResponse:
    if request.response_format is not None:
        raise BadRequest("it quotes text and cannot give a format", provider="extractive", model=MODEL)
    texts = [_text(message.get("content")) for message in request.messages if message.get("role") != "system"]
    count = int(request.extra.get("sentences", _SENTENCES))
    question, text = _split_question(texts)
    content = answer(question, text, count) if question else digest(text, count)
    if request.max_tokens is not None:
        content = "".join(_TOKEN.findall(content)[: request.max_tokens])
    read = sum(len(_TOKEN.findall(text)) for text in texts)
    return LLMResponse(content, MODEL, Usage(read, len(_TOKEN.findall(content))), [], "stop")


def _split_question(texts: Sequence[str]) -> tuple[str, str]:
    if not texts:
        return "", ""
    last = texts[-1]
    if found := _QUESTION.search(last):
        return found[1], "\n\n".join([*texts[:-1], last[: found.start()] + "\n\n" + last[found.end() :]])
    paragraphs = re.split(r"\n\s*\n", last.strip())
    if paragraphs[-1].rstrip().endswith("?"):
        return paragraphs[-1], "\n\n".join([*texts[:-1], *paragraphs[:-1]])
    return "", "\n\n".join(texts)


def _blocks(document: str) -> Iterable[str]:
    """Paragraphs and list items, each on one line; lines that are markup are dropped."""
    lines: list[str] = []
    in_code = False
    for line in [*document.splitlines(), ""]:
        if line.lstrip().startswith("```"):
            in_code = not in_code
        text = line.strip()
        alone = text.startswith("#") or _SOURCE.match(text) is not None
        dropped = not text or in_code or _FURNITURE.match(line) is not None
        if lines and (dropped or alone or text.startswith(("- ", "* ", "> "))):
            yield " ".join(lines)
            lines = []
        if dropped:
            continue
        lines.append(text.lstrip("#>").removeprefix("- ").removeprefix("* ").strip())
        if alone:
            yield lines.pop()


def _words(text: str) -> list[str]:
    return [_stem(word) for word in _WORD.findall(text.lower()) if word not in _STOP]


def _stem(word: str) -> str:
    """Enough of a stem for a question in the singular to meet a text in the plural."""
    for ending in ("ing", "ed", "es", "s"):
        if word.endswith(ending) and len(word) - len(ending) >= 4:
            return word.removesuffix(ending).removesuffix("e")
    return word.removesuffix("e") if len(word) > 4 else word


def _rarity(sentences: Sequence[Sentence]) -> dict[str, float]:
    """Inverse sentence frequency of each word, always positive."""
    seen = Counter(word for sentence in sentences for word in set(sentence.words))
    return {word: math.log(1 + (len(sentences) - n + 0.5) / (n + 0.5)) for word, n in seen.items()}


def _text(content: Any) -> str:
    if isinstance(content, str):
        return content
    parts = [part.get("text", "") for part in content or () if isinstance(part, dict)]
    return "\n".join(part for part in parts if isinstance(part, str))
