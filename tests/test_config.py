"""Settings come from the environment, and a bad value is named."""

from __future__ import annotations

import pytest

from duragraph.config import Settings
from duragraph.errors import Invalid

URL = "postgresql://user:secret@db/app"


def test_defaults_need_only_a_database() -> None:
    settings = Settings.from_environment({"DATABASE_URL": URL})
    assert (settings.listen_url, settings.port, settings.max_body_bytes) == (URL, 8081, 16 * 2**20)


def test_arguments_win_over_the_environment_unless_they_are_none() -> None:
    environ = {"DATABASE_URL": URL, "DURAGRAPH_PORT": "9000", "DURAGRAPH_HOST": "0.0.0.0"}
    settings = Settings.from_environment(environ, port=9001, host=None)
    assert (settings.port, settings.host) == (9001, "0.0.0.0")


@pytest.mark.parametrize(
    ("variable", "value", "said"),
    [
        ("DURAGRAPH_PORT", "http", "DURAGRAPH_PORT is 'http' and must be a number"),
        ("DURAGRAPH_PORT", "70000", "must be from 0 to 65535"),
        ("DURAGRAPH_LOG_LEVEL", "loud", "must be one of debug, info, warning, error"),
        ("DURAGRAPH_LOG_JSON", "maybe", "must be true or false"),
        ("DURAGRAPH_STATEMENT_TIMEOUT", "nan", "must be from"),
        ("DURAGRAPH_POOL_MIN", "500", "more than DURAGRAPH_POOL_MAX"),
    ],
)
def test_a_bad_value_is_named(variable: str, value: str, said: str) -> None:
    with pytest.raises(Invalid, match=said) as problem:
        Settings.from_environment({"DATABASE_URL": URL, variable: value})
    assert problem.value.field == variable


def test_a_bad_database_url_is_not_shown() -> None:
    with pytest.raises(Invalid) as problem:
        Settings.from_environment({"DATABASE_URL": "mysql://user:secret@db/app"})
    assert "secret" not in str(problem.value)


def test_no_database_says_what_to_do() -> None:
    with pytest.raises(Invalid, match='set DATABASE_URL or use "duragraph dev"'):
        Settings.from_environment({})


def test_a_secret_is_checked_and_never_shown() -> None:
    with pytest.raises(Invalid) as refused:
        Settings.from_environment({"DATABASE_URL": "postgresql://x/y", "DURAGRAPH_WEBHOOK_SECRET": "whsec_not*base64"})
    assert refused.value.field == "DURAGRAPH_WEBHOOK_SECRET"
    assert "not*base64" not in str(refused.value)
    good = Settings.from_environment({"DATABASE_URL": "postgresql://x/y", "DURAGRAPH_WEBHOOK_SECRET": "whsec_c2VjcmV0"})
    assert "whsec_" not in repr(good)
