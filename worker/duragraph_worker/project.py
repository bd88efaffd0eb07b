"""The small project that `duragraph-worker new` makes: a graph, a test of it that passes, and how to run both."""

from __future__ import annotations

import re
from pathlib import Path

from duragraph_worker.errors import DuraGraphError


class ProjectError(DuraGraphError):
    """The project cannot be made there; nothing was written."""


def create_project(folder: Path) -> list[Path]:
    """Make the project in `folder`, which must be absent or empty; gives the files written. Raises `ProjectError`."""
    words = re.findall(r"[A-Za-z0-9]+", folder.name)
    if not words or words[0][0].isdigit():
        raise ProjectError(f'"{folder.name}" cannot name a project; begin with a letter, as in "my_agent"')
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise ProjectError(f"{folder} is there already; choose another name")
    names = {
        "GRAPH_ID": "_".join(words).lower(),
        "CLASS": "".join(word[0].upper() + word[1:] for word in words),
        "PROJECT": "-".join(words).lower(),
    }
    folder.mkdir(parents=True, exist_ok=True)
    return [_write(folder / name, text, names) for name, text in _FILES.items()]


def _write(path: Path, text: str, names: dict[str, str]) -> Path:
    for placeholder, name in names.items():
        text = text.replace(placeholder, name)
    path.write_text(text, encoding="utf-8")
    return path


_AGENT = '''\
"""Answers a question about a text."""

import os
from pathlib import Path
from typing import TypedDict

from duragraph_worker import Graph, entrypoint, llm_node, node

# "extractive" needs no key: it quotes the text. Any other model is one word away: MODEL=gpt-4o-mini
MODEL = os.environ.get("MODEL", "extractive")


class State(TypedDict, total=False):
    question: str
    text: str
    answer: str


@Graph(id="GRAPH_ID", state=State)
class CLASS:
    @entrypoint
    @node
    def read(self, state):
        """The text to answer from: the one given, else this project's README."""
        return {"text": state.get("text") or Path(__file__).with_name("README.md").read_text(encoding="utf-8")}

    @llm_node(model=MODEL, output="answer", system_prompt="Answer from the text alone, and quote it.")
    def reply(self, state):
        return f"{state['text']}\\n\\nQuestion: {state['question']}"

    read >> reply
'''

_TEST = """\
from agent import CLASS


def test_the_answer_comes_from_the_text():
    text = "Trolls live under bridges. They come out at night. Goats cross the bridges by day."

    result = CLASS().run({"question": "Where do trolls live?", "text": text})

    assert result.status == "success"
    assert "Trolls live under bridges." in result.output["answer"]
"""

_README = """\
# PROJECT

A graph in two nodes: `read` takes the text, `reply` answers a question about it.

Try the test, which needs no server and no key:

    pip install -e ".[test]"
    pytest

Serve it. The first terminal starts a control plane (`pip install "duragraph[embedded]"`), the second this worker:

    duragraph dev
    duragraph-worker run agent.py

Ask it something. The control plane keeps every step, so a worker that dies is replaced by another one:

    curl -s http://localhost:8081/runs/wait -H 'Content-Type: application/json' \\
      -d '{"assistant_id": "GRAPH_ID", "input": {"question": "What does the control plane keep?"}}'

With `OPENAI_API_KEY` set, `MODEL=gpt-4o-mini duragraph-worker run agent.py` lets a language model answer.
"""

_PYPROJECT = """\
[project]
name = "PROJECT"
version = "0.1.0"
requires-python = ">=3.11"
dependencies = ["duragraph-worker"]

[project.optional-dependencies]
openai = ["duragraph-worker[openai]"]
test = ["pytest"]

[build-system]
requires = ["hatchling"]
build-backend = "hatchling.build"

[tool.hatch.build.targets.wheel]
only-include = ["agent.py"]

[tool.pytest.ini_options]
pythonpath = ["."]
"""

_FILES = {"agent.py": _AGENT, "test_agent.py": _TEST, "README.md": _README, "pyproject.toml": _PYPROJECT}
