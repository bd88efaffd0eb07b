"""A document agent: reads a folder of text, digests every document, and answers a question with quotes and file names.

    duragraph dev agent.py:DocumentAgent

With OPENAI_API_KEY or OPENAI_BASE_URL it asks DEMO_MODEL (gpt-4o-mini). Without, it asks no language model: the
extractive provider quotes the best sentences, word for word.
"""

import asyncio
import math
import os
import re
from collections import Counter, defaultdict
from pathlib import Path
from typing import Annotated, TypedDict

from duragraph_worker import Graph, Send, append, entrypoint, llm_node, node, router_node

MODEL, PROVIDER = "extractive", "extractive"
if os.environ.get("OPENAI_API_KEY") or os.environ.get("OPENAI_BASE_URL"):
    MODEL, PROVIDER = os.environ.get("DEMO_MODEL") or "gpt-4o-mini", "openai"
PAUSE = float(os.environ.get("DEMO_PAUSE") or 0)  # seconds between digests, so that quoting can be watched
KINDS = {".md", ".txt", ".rst", ".py", ".sql"}
SKIPPED = re.compile(r"(^|/)(\.|build/|dist/|node_modules/|site-packages/)")
MAX_BYTES, MAX_DOCUMENTS, MAX_PROMPT, MAX_PASSAGES = 100_000, 1000, 20_000, 6
WIDTH = 8  # digests at once: what a killed worker has in flight, and the most it can lose

DIGEST = "Say in at most three sentences what this document is about."
ANSWER = "Answer from the passages alone; quote them in quotation marks, each quote followed by its [file name]."


class State(TypedDict, total=False):
    path: str
    question: str
    documents: list[str]
    digests: Annotated[list[str], append]  # in the order of the documents
    passages: list[dict[str, str]]
    answer: str


@Graph(id="document_agent", state=State)
class DocumentAgent:
    """Discovers documents, digests each in a durable step of its own, finds passages, answers."""

    @entrypoint
    @node()
    def discover(self, state):
        documents = find_documents(state["path"])
        if not documents:
            raise ValueError(f"no text files ({' '.join(sorted(KINDS))}) in {state['path']}")
        return {"documents": documents}

    @router_node()
    def spread(self, state):
        begun = len(state["digests"])
        wave = enumerate(state["documents"][begun : begun + WIDTH], 1)
        return [Send("digest", {"path": state["path"], "name": name, "place": n}) for n, name in wave] or "index"

    @llm_node(MODEL, provider=PROVIDER, system_prompt=DIGEST, output="digests", stream=False)
    async def digest(self, document, ctx):
        ctx.emit({"reading": document["name"], "attempt": ctx.attempt})
        await asyncio.sleep(PAUSE * document["place"])
        return f"[{document['name']}]\n\n{read(document['path'], document['name'])[:MAX_PROMPT]}"

    @node()
    def index(self, state):
        digests = dict(zip(state["documents"], state["digests"], strict=True))
        found = [(name, text) for name in digests for text in sentences(read(state["path"], name))]
        return {"passages": best_passages(state["question"], found, digests)}

    @llm_node(MODEL, provider=PROVIDER, system_prompt=ANSWER, output="answer")
    def answer(self, state):
        passages = [f"[{passage['file']}]\n\n{passage['text']}" for passage in state["passages"]]
        return "\n\n".join([*passages, f"Question: {state['question']}"])

    discover >> spread >> digest >> spread >> index >> answer


def find_documents(folder):
    """Names of the text files below a folder, without what is hidden, built, empty, or too large to be prose."""
    files = [path for path in Path(folder).rglob("*") if path.suffix.lower() in KINDS and path.is_file()]
    names = [str(path.relative_to(folder)) for path in files if 0 < path.stat().st_size <= MAX_BYTES]
    return sorted(name for name in names if name.isprintable() and not SKIPPED.search(name))[:MAX_DOCUMENTS]


def read(folder, name):
    return Path(folder, name).read_text(errors="replace").replace("\0", "")


def sentences(text):
    """The sentences of prose, of comments and of docstrings; code is left out."""
    text = re.sub(r"^```.*?^```", "", text, flags=re.DOTALL | re.MULTILINE)
    text = re.sub(r"^[ \t]*(#+|--|[-*>] |\"\"\")|\"\"\"$", "\n", text, flags=re.MULTILINE)
    parts = (part for block in re.split(r"\n\s*\n", text) for part in re.split(r"(?<=[.!?])\s+(?=[A-Z])", block))
    for part in dict.fromkeys(" ".join(part.split()) for part in parts):
        if part.endswith((".", "!", "?")) and 6 <= len(part.split()) <= 60 and not re.search(r"[={}|<>]|\w\(", part):
            yield part


def words(text):
    return re.findall(r"\b(?!(?:the|and|are|for|how|what|when)\b)([^\W_]{3,}?)(?:ing|ed|es|s)?\b", text.lower())


def best_passages(question, found, digests):
    """The sentences that fit the question best: BM25 over an inverted index, more where the digest fits too."""
    counts = [Counter(words(text)) for _, text in found]
    index = defaultdict(dict)
    for number, count in enumerate(counts):
        for word, times in count.items():
            index[word][number] = times
    mean = sum(count.total() for count in counts) / max(1, len(counts))
    asked, scores = set(words(question)), Counter()
    for word in sorted(asked & index.keys()):
        rarity = math.log(1 + (len(found) - len(index[word]) + 0.5) / (len(index[word]) + 0.5))
        for number, times in index[word].items():
            scores[number] += rarity * times * 2.5 / (times + 1.5 * (0.25 + 0.75 * counts[number].total() / mean))
    for number in scores:
        scores[number] *= 1 + len(asked.intersection(words(digests[found[number][0]]))) / 10
    return [{"file": found[number][0], "text": found[number][1]} for number, _ in scores.most_common(MAX_PASSAGES)]
