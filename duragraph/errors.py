"""Every error DuraGraph tells a client about: a stable code, an HTTP status, what happened, and what to do."""

from __future__ import annotations

import json
import re
from typing import ClassVar


class DuragraphError(Exception):
    """Something a caller can act on.

    `code` is stable and made for programs, `message` and `hint` are made for people: what happened, and what to do.
    `field` names the part of the request at fault (dotted: "config.tags.0"); `retry_after` is in seconds and set only
    where the same request may succeed later.
    """

    default_code: ClassVar[str] = "internal_error"
    default_status: ClassVar[int] = 500
    default_retry_after: ClassVar[float | None] = None

    def __init__(
        self,
        message: str,
        *,
        code: str | None = None,
        status: int | None = None,
        hint: str | None = None,
        field: str | None = None,
        retry_after: float | None = None,
    ) -> None:
        super().__init__(message)
        self.message = message
        self.code = code or self.default_code
        self.status = status or self.default_status
        self.hint = hint
        self.field = field
        self.retry_after = self.default_retry_after if retry_after is None else retry_after

    def __str__(self) -> str:
        return f"{self.message}; {self.hint}" if self.hint else self.message


class Malformed(DuragraphError):
    """400: the bytes are no request of the kind expected, such as broken JSON."""

    default_code = "malformed"
    default_status = 400


class Invalid(DuragraphError):
    """422: the request cannot be understood, or breaks a rule whatever the state of the server is."""

    default_code = "invalid"
    default_status = 422


class Unauthenticated(DuragraphError):
    """401: who is calling is not known."""

    default_code = "unauthenticated"
    default_status = 401


class Forbidden(DuragraphError):
    """403: the caller is known and may not do this."""

    default_code = "forbidden"
    default_status = 403


class NotFound(DuragraphError):
    """404: there is no such thing, or the caller may not know of it."""

    default_code = "not_found"
    default_status = 404


class Conflict(DuragraphError):
    """409: the request is fine and the present state forbids it."""

    default_code = "conflict"
    default_status = 409


class LeaseLost(Conflict):
    """409: the run belongs to a later attempt, or to nobody. The worker stops that run; nothing was written."""

    default_code = "lease_lost"


class TooLarge(DuragraphError):
    """413: the body, an event or a state is over its limit; the message names the limit."""

    default_code = "too_large"
    default_status = 413


class TooMany(DuragraphError):
    """429: a rate, a quota or a concurrency limit is reached."""

    default_code = "too_many_requests"
    default_status = 429
    default_retry_after = 1.0


class Unavailable(DuragraphError):
    """503: the database or a part of the server cannot answer now; nothing was half done."""

    default_code = "unavailable"
    default_status = 503
    default_retry_after = 1.0


_BY_STATUS: dict[int, type[DuragraphError]] = {
    kind.default_status: kind
    for kind in (Malformed, Unauthenticated, Forbidden, NotFound, Conflict, TooLarge, Invalid, TooMany, Unavailable)
}
_BY_CODE: dict[str, type[DuragraphError]] = {LeaseLost.default_code: LeaseLost}

_OWN_STATE = re.compile(r"DG([45]\d\d)")
# The short form of what DETAIL says: a code, and maybe a field.
_WORDS = re.compile(r"(?P<code>[a-z][a-z0-9_]*)(?: (?P<field>\S+))?")


def from_sqlstate(
    sqlstate: str | None, message: str, hint: str | None = None, detail: str | None = None
) -> DuragraphError:
    """The error for a SQLSTATE: the one place where the database's codes become HTTP's.

    Our own functions raise `DG` + the HTTP status, and may say a stable code and the field at fault in DETAIL:
    {"code": "graph_not_found", "field": "graph_id"}, or in short "lease_lost". The rest is PostgreSQL's own, whose text
    stays in the log: it could tell a stranger about the schema.
    Codes: https://www.postgresql.org/docs/current/errcodes-appendix.html
    """
    state = sqlstate or ""
    if own := _OWN_STATE.fullmatch(state):
        return _own(int(own[1]), message, hint, detail)
    if state == "54000":
        # A key of kilobytes, such as a channel's name; the message would name the index.
        return Invalid("a name in the request is too long", code="invalid_value", hint="use a shorter one")
    if state.startswith("22") or state == "54001":
        # 54001 (stack depth) is what absurdly nested JSON comes to.
        return Invalid(message, code="invalid_value")
    if state.startswith("23"):
        return Conflict("the request conflicts with what is stored", code="constraint_violated")
    if state in ("40001", "40P01"):
        return Unavailable("two requests met; nothing was changed", code="serialization_failure", hint="send it again")
    if state == "57014":
        return Unavailable("the database took longer than the statement time-out", code="statement_timeout")
    if state.startswith(("08", "53", "57P")):
        return Unavailable("the database cannot answer now", code="database_unavailable")
    return DuragraphError("the database refused the request", code="database_error")


def _own(status: int, message: str, hint: str | None, detail: str | None) -> DuragraphError:
    code, field = _code_and_field(detail or "")
    kind = _BY_CODE.get(code or "") or _BY_STATUS.get(status, DuragraphError)
    return kind(message, code=code, status=status, hint=hint, field=field)


def _code_and_field(detail: str) -> tuple[str | None, str | None]:
    if words := _WORDS.fullmatch(detail):
        return words["code"], words["field"]
    try:
        said = json.loads(detail)
    except ValueError:
        return None, None
    return (said.get("code"), said.get("field")) if isinstance(said, dict) else (None, None)
