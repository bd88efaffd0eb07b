"""What the server says about itself."""

from __future__ import annotations

import re
from uuid import uuid4

from duragraph import __version__
from duragraph.answers import Health, Ok
from tests.api.acting import Acting
from tests.sql.scene import COUNTER


def test_ok(acting: Acting) -> None:
    for path in ("/ok", "/"):
        assert acting.shape(Ok, acting.get(path)).ok is True
    assert acting.get("/ok", params={"check_db": "1"}) == {"ok": True, "services": {}}
    assert acting.refused("GET", "/ok", params={"check_db": "perhaps"}) == ("invalid_parameter", "check_db")


def test_the_prefix_is_the_same_api(acting: Acting) -> None:
    for path in ("/ok", "/info", "/openapi.json"):
        assert acting.get(f"/api/v1{path}") == acting.get(path)
    thread = acting.post("/api/v1/threads", {})
    assert acting.get(f"/threads/{thread['thread_id']}") == thread


def test_info_names_versions_and_flags(acting: Acting) -> None:
    info = acting.get("/info")
    assert info["metadata"]["server_version"] == __version__
    assert isinstance(info["version"], str)
    assert info["flags"]["assistants"] is True
    assert info["flags"]["crons"] is True
    assert {"crons", "store"} <= set(info["capabilities"])


def test_health_is_said_part_by_part(acting: Acting) -> None:
    health = acting.shape(Health, acting.get("/health"))
    assert (health.status, health.reasons, health.draining) == ("healthy", [], False)
    assert health.listen == {"ok": True, "problem": None}
    assert health.schema_version["installed"] == health.schema_version["needed"]
    assert health.pool["max"] >= health.pool["size"] >= 1


def test_metrics_count_the_queue(acting: Acting) -> None:
    graph = f'a "graph" {uuid4().hex[:8]}'
    acting.worker({**COUNTER, "graph_id": graph})
    acting.post("/runs", {"assistant_id": graph})
    found = acting.get("/metrics", params={"format": "json"})
    [one] = [one for one in found["graphs"] if one["graph_id"] == graph]
    assert (one["ready"], one["running"], one["workers_alive"]) == (1, 0, 1)
    assert found["queue"]["n_pending"] >= 1
    response = acting.call("GET", "/metrics")
    assert response.headers["content-type"].startswith("text/plain")
    label = graph.replace('"', r"\"")
    assert f'duragraph_runs{{graph="{label}",state="ready"}} 1' in response.text.splitlines()
    assert acting.refused("GET", "/metrics", params={"format": "xml"}) == ("invalid_parameter", "format")


def test_metrics_are_in_prometheus_text_format(acting: Acting) -> None:
    acting.worker()
    sample = re.compile(r'duragraph_\w+(\{(\w+="([^"\\]|\\.)*",?)*\})? -?[0-9.e+-]+')
    comment = re.compile(r"# (HELP duragraph_\w+ .+|TYPE duragraph_\w+ gauge)")
    text = acting.call("GET", "/metrics").text
    assert text.endswith("\n")
    for line in text.splitlines():
        assert sample.fullmatch(line) or comment.fullmatch(line), line


def test_the_page_needs_nothing_from_elsewhere(acting: Acting) -> None:
    response = acting.call("GET", "/docs")
    assert response.headers["content-type"].startswith("text/html")
    assert "default-src 'none'" in response.headers["content-security-policy"]
    assert not re.search(r"""(src|href)=["']?(https?:)?//|@import|url\(""", response.text)


def test_head_is_get_without_the_body(acting: Acting) -> None:
    thread = acting.thread()
    for path in (
        "/",
        "/ok",
        "/info",
        "/docs",
        "/openapi.json",
        f"/threads/{thread}",
        f"/api/v1/threads/{thread}/state",
    ):
        head, get = acting.http.head(path), acting.http.get(path)
        assert (head.status_code, head.content) == (200, b""), path
        assert head.headers["content-type"] == get.headers["content-type"]
    assert acting.http.head("/threads/nothing").status_code == 422
