"""The settings of a control plane process, read from the environment and overridden by command-line arguments."""

from __future__ import annotations

import os
from base64 import b64decode
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, fields
from typing import Any, Self, TypeVar

from duragraph.errors import Invalid

T = TypeVar("T", int, float)

_TRUE = frozenset({"1", "true", "yes", "on"})
_FALSE = frozenset({"0", "false", "no", "off"})


def _text(raw: str) -> str:
    if not raw.strip():
        raise ValueError("must not be empty")
    return raw


def _dsn(raw: str) -> str:
    if not raw.startswith(("postgresql://", "postgres://")) and "=" not in raw:
        raise ValueError('must look like "postgresql://user:password@host:5432/database"')
    return raw


def _secret(raw: str) -> str:
    if raw.startswith("whsec_"):
        try:
            b64decode(raw.removeprefix("whsec_"), validate=True)
        except ValueError:
            raise ValueError("must be base64 after whsec_") from None
    return raw


def _flag(raw: str) -> bool:
    word = raw.strip().lower()
    if word not in _TRUE | _FALSE:
        raise ValueError("must be true or false")
    return word in _TRUE


def _choice(*choices: str) -> Callable[[str], str]:
    def read(raw: str) -> str:
        word = raw.strip().lower()
        if word not in choices:
            raise ValueError(f"must be one of {', '.join(choices)}")
        return word

    return read


def _number(kind: type[T], low: T, high: T) -> Callable[[str], T]:
    def read(raw: str) -> T:
        try:
            value = kind(raw)
        except ValueError:
            raise ValueError("must be a number") from None
        if not low <= value <= high:
            raise ValueError(f"must be from {low} to {high}")
        return value

    return read


def _setting(env: str, read: Callable[[str], Any], default: Any, about: str) -> Any:
    return field(default=default, repr=read is not _secret, metadata={"env": env, "read": read, "about": about})


@dataclass(frozen=True, kw_only=True)
class Settings:
    """What a process needs to know. `Settings.from_environment()` reads it; times are seconds, sizes bytes."""

    database_url: str = _setting("DATABASE_URL", _dsn, "", "PostgreSQL, 15 or newer; may be a PgBouncer")
    listen_url: str = _setting(
        "DURAGRAPH_LISTEN_URL", _dsn, "", "a direct connection for LISTEN; default: the database_url"
    )
    host: str = _setting("DURAGRAPH_HOST", _text, "127.0.0.1", "the address to listen on; 0.0.0.0 for all")
    port: int = _setting("DURAGRAPH_PORT", _number(int, 0, 65535), 8081, "the port to listen on; 0 for a free one")
    pool_min: int = _setting("DURAGRAPH_POOL_MIN", _number(int, 0, 1000), 2, "connections held open")
    pool_max: int = _setting("DURAGRAPH_POOL_MAX", _number(int, 1, 1000), 10, "connections at most, a process")
    prepare: bool = _setting(
        "DURAGRAPH_PREPARE", _flag, True, "prepared statements; false behind a pooler that does not keep them"
    )
    max_body_bytes: int = _setting(
        "DURAGRAPH_MAX_BODY_BYTES", _number(int, 1024, 2**30), 16 * 2**20, "the largest request body"
    )
    statement_timeout: float = _setting(
        "DURAGRAPH_STATEMENT_TIMEOUT", _number(float, 0.1, 3600.0), 30.0, "the longest a statement may take"
    )
    heartbeat_seconds: float = _setting(
        "DURAGRAPH_HEARTBEAT_SECONDS", _number(float, 0.05, 5.0), 5.0, "a comment on each idle stream, this often"
    )
    await_workers: int = _setting(
        "DURAGRAPH_AWAIT_WORKERS",
        _number(int, 0, 1000),
        0,
        "/ok says 503 until so many workers ask for runs, or for 30 s",
    )
    webhook_secret: str = _setting(
        "DURAGRAPH_WEBHOOK_SECRET", _secret, "", "signs webhooks (Standard Webhooks); whsec_ and base64, or any text"
    )
    webhook_allow_loopback: bool = _setting(
        "DURAGRAPH_WEBHOOK_ALLOW_LOOPBACK", _flag, False, "webhooks may call this machine; for development"
    )
    webhook_allow_private: bool = _setting(
        "DURAGRAPH_WEBHOOK_ALLOW_PRIVATE", _flag, False, "webhooks may call private networks"
    )
    log_level: str = _setting(
        "DURAGRAPH_LOG_LEVEL", _choice("debug", "info", "warning", "error"), "info", "what is logged"
    )
    log_json: bool = _setting("DURAGRAPH_LOG_JSON", _flag, False, "one JSON object a line instead of text")

    def __post_init__(self) -> None:
        if not self.database_url:
            raise Invalid(
                "no database is configured", field="DATABASE_URL", hint='set DATABASE_URL or use "duragraph dev"'
            )
        if not self.listen_url:
            object.__setattr__(self, "listen_url", self.database_url)
        if self.pool_min > self.pool_max:
            raise Invalid(
                f"DURAGRAPH_POOL_MIN is {self.pool_min}, more than DURAGRAPH_POOL_MAX, {self.pool_max}",
                field="DURAGRAPH_POOL_MIN",
                hint="raise one or lower the other",
            )

    @classmethod
    def from_environment(cls, environ: Mapping[str, str] | None = None, **overrides: object) -> Self:
        """Settings from the environment; an override that is not None wins. Raises `Invalid`, naming the variable."""
        environ = os.environ if environ is None else environ
        values: dict[str, Any] = {name: value for name, value in overrides.items() if value is not None}
        for setting in fields(cls):
            raw = environ.get(setting.metadata["env"])
            if setting.name not in values and raw:
                values[setting.name] = _read(setting.metadata["env"], setting.metadata["read"], raw)
        return cls(**values)


def _read(variable: str, read: Callable[[str], Any], raw: str) -> Any:
    try:
        return read(raw)
    except ValueError as problem:
        # A secret is not shown, nor a DSN, which may hold a password.
        shown = "" if read in (_dsn, _secret) else f" is {raw!r} and"
        raise Invalid(f"{variable}{shown} {problem}", field=variable, hint=f"correct {variable}") from None
