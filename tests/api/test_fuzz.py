"""Whatever fits the description, and whatever does not, is answered as the description says, and never by a 5xx.

Schemathesis makes the cases of every operation of /openapi.json: one for each limit that a schema has ("coverage"), and
FUZZ_EXAMPLES (default 10) from the whole of it, of those that fit and of those that do not. These are about 9,000 with
the default. The seed is fixed. Three cases of four name threads, runs, assistants, crons and workers that are there. A
longer dose by hand, which says how many cases each operation had:

    FUZZ_EXAMPLES=300 FUZZ_SEED=7 python -m pytest tests/api/test_fuzz.py -n 2 -rP

Answers without end (streams, joins of runs that wait) are read for a fraction of a second, in which the server sends
heartbeats; then status and headers are judged, and the whole frames that came. Long polls are held as short.
"""

from __future__ import annotations

import os
from collections.abc import Iterator

import httpx
import pytest
import requests
import schemathesis
from hypothesis import HealthCheck, settings
from schemathesis import BaseSchema, Case, Response, checks, openapi
from schemathesis.core.failures import FailureGroup
from schemathesis.generation.feedback import FeedbackSources
from schemathesis.pytest._test_builder import build_operation_test

from duragraph.api import workers, workers_v1
from duragraph.app import create_app
from duragraph.config import Settings
from duragraph.openapi import document, operations
from tests.api.conftest import Live, start
from tests.api.fuzzing import Things, answered, worker_at_work
from tests.postgres import Server

EXAMPLES = int(os.environ.get("FUZZ_EXAMPLES", "10"))
SEED = int(os.environ.get("FUZZ_SEED", "1"))

CONFIG = {
    "seed": SEED,
    "generation": {"max-examples": EXAMPLES, "no-shrink": True, "database": "none"},
    "phases": {"stateful": {"enabled": False}},
}
checks.load_all_checks()
CHECKS = [
    checks.not_a_server_error,
    checks.status_code_conformance,
    checks.content_type_conformance,
    checks.response_headers_conformance,
    checks.response_schema_conformance,
]
# OpenAPI 3.1 describes a stream as the text that it is; Schemathesis holds each whole frame against this.
FRAME = {
    "type": "object",
    "required": ["data"],
    "properties": {name: {"type": "string"} for name in ("event", "data", "id")},
    "additionalProperties": False,
}
HELD = 0.1
"""Seconds for which long polls are held here."""


@pytest.fixture(scope="module")
def described() -> BaseSchema:
    """The whole description."""
    # Nothing is connected to before the application is started.
    deps = create_app(Settings(database_url="postgresql://nobody@localhost/nothing")).deps
    whole = document(deps)
    for methods in whole["paths"].values():
        for one in methods.values():
            for answer in one["responses"].values():
                if stream := answer.get("content", {}).get("text/event-stream"):
                    stream["schema"] = FRAME
    return openapi.from_dict(whole, config=schemathesis.Config.from_dict(CONFIG))


@pytest.fixture(scope="module")
def served(server: Server) -> Iterator[Live]:
    """A server with a worker at work, on a database of its own."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(workers, "POLL_SECONDS", HELD)
        patch.setattr(workers_v1, "HOLD_SECONDS", HELD)
        with (
            server.database(server.template) as name,
            start(server.dsn(name), heartbeat_seconds=0.1) as running,
            worker_at_work(running),
        ):
            yield running


@pytest.fixture
def things(served: Live) -> Things:
    """What the cases of one operation may name."""
    with httpx.Client(base_url=served.url, timeout=30) as http:
        return Things(http)


class Findings:
    """What is wrong with the answers: each kind once, with a request that shows it."""

    def __init__(self) -> None:
        self.cases = 0
        self.found: dict[str, str] = {}

    def judge(self, case: Case, response: Response, url: str) -> None:
        """Hold an answer against the description."""
        self.cases += 1
        cut_json = response.stream_cut_short and "json" in response.headers["content-type"][0]
        try:
            case.validate_response(
                response, checks=CHECKS, excluded_checks=[checks.response_schema_conformance] if cut_json else []
            )
        except FailureGroup as failures:
            for failure in failures.exceptions:
                self._add(f"{response.status_code} {failure.title}: {failure.message}"[:400], case, response, url)

    def _add(self, kind: str, case: Case, response: Response, url: str) -> None:
        """Remember the first request of a kind."""
        shown = f"{kind}\n  {case.as_curl_command(base_url=url)[:2000]}\n  {response.content[:500]!r}"
        self.found.setdefault(kind, shown)


@pytest.mark.timeout(120 + 6 * EXAMPLES)
# The server's threads draw random numbers meanwhile, which Hypothesis takes for the strategies' own.
@pytest.mark.filterwarnings("ignore:Do not use the `random` module inside strategies")
@pytest.mark.parametrize("operation", operations())
def test_the_answers_are_as_described(operation: str, described: BaseSchema, served: Live, things: Things) -> None:
    findings = Findings()
    method, path = operation.split()
    with requests.Session() as session:

        def judge(case: Case) -> None:
            things.put_into(case)
            findings.judge(case, answered(case, session, served.url), served.url)

        cases = build_operation_test(
            config=described.config,
            operation=described[path][method],
            # The same things serve all cases of an operation.
            test_func=settings(suppress_health_check=list(HealthCheck), deadline=None)(judge),
            given_kwargs={},
            feedback=FeedbackSources(),
        )
        cases()
    print(f"{operation}: {findings.cases} cases")
    assert not findings.found, f"{findings.cases} cases\n\n" + "\n\n".join(findings.found.values())
