"""One table turns SQLSTATEs into HTTP, and tells a stranger nothing of the schema."""

from __future__ import annotations

import pytest

from duragraph.errors import (
    Conflict,
    DuragraphError,
    Invalid,
    LeaseLost,
    Malformed,
    NotFound,
    Unavailable,
    from_sqlstate,
)


@pytest.mark.parametrize(
    ("sqlstate", "kind", "status", "code"),
    [
        ("DG400", Malformed, 400, "malformed"),
        ("DG404", NotFound, 404, "not_found"),
        ("DG409", Conflict, 409, "conflict"),
        ("DG418", DuragraphError, 418, "internal_error"),
        ("22P02", Invalid, 422, "invalid_value"),
        ("22P05", Invalid, 422, "invalid_value"),
        ("54000", Invalid, 422, "invalid_value"),
        ("54001", Invalid, 422, "invalid_value"),
        ("23505", Conflict, 409, "constraint_violated"),
        ("40001", Unavailable, 503, "serialization_failure"),
        ("40P01", Unavailable, 503, "serialization_failure"),
        ("53300", Unavailable, 503, "database_unavailable"),
        ("57P01", Unavailable, 503, "database_unavailable"),
        ("57014", Unavailable, 503, "statement_timeout"),
        ("08006", Unavailable, 503, "database_unavailable"),
        ("42703", DuragraphError, 500, "database_error"),
        (None, DuragraphError, 500, "database_error"),
    ],
)
def test_a_sqlstate_becomes_a_status_and_a_code(
    sqlstate: str | None, kind: type[DuragraphError], status: int, code: str
) -> None:
    error = from_sqlstate(sqlstate, "text")
    assert (type(error), error.status, error.code) == (kind, status, code)
    assert (error.retry_after is not None) == (status == 503)


@pytest.mark.parametrize("detail", ['{"code": "graph_not_found", "field": "graph_id"}', "graph_not_found graph_id"])
def test_detail_names_the_code_and_the_field(detail: str) -> None:
    error = from_sqlstate("DG404", "no such graph", "register it", detail)
    assert (error.code, error.field, str(error)) == ("graph_not_found", "graph_id", "no such graph; register it")


def test_a_lost_lease_has_a_class_of_its_own() -> None:
    assert type(from_sqlstate("DG409", "later attempt", detail="lease_lost")) is LeaseLost


@pytest.mark.parametrize("detail", ["[1]", "Key (a)=(1) already exists.", "", "{"])
def test_a_detail_that_says_neither_changes_nothing(detail: str) -> None:
    assert from_sqlstate("DG409", "text", detail=detail).code == "conflict"


@pytest.mark.parametrize("sqlstate", ["23505", "42703", "53300", "XX000"])
def test_the_schema_is_not_told(sqlstate: str) -> None:
    assert "secret_table" not in str(from_sqlstate(sqlstate, "relation secret_table", "see secret_table"))
