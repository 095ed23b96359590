"""Errors of the target are sorted once."""

from __future__ import annotations

import pytest

from sinks import errors
from sinks.errors import (
    AccessDenied,
    DataRefused,
    Fault,
    Refusal,
    SinkError,
    TargetReadOnly,
    TargetUnreachable,
    sort_sqlstate,
    target_error,
)
from transforms.errors import EXIT_NEEDS_PERSON, EXIT_UNREACHABLE

ALL = [kind for kind in vars(errors).values() if isinstance(kind, type) and issubclass(kind, SinkError)]


@pytest.mark.parametrize(
    "sqlstate",
    [None, "08006", "40001", "40P01", "53100", "53300", "55P03", "57014", "57P01", "57P03", "58030", "25P03", "25006"],
)
def test_what_may_pass_is_retried_for_ever(sqlstate: str | None) -> None:
    assert sort_sqlstate(sqlstate) is Fault.TRANSIENT
    assert target_error(sqlstate, "server says so").retryable


@pytest.mark.parametrize("sqlstate", ["22P02", "22003", "22021", "23502", "23505", "23514", "42804", "54000", "21000"])
def test_what_a_row_holds_is_parked(sqlstate: str) -> None:
    assert sort_sqlstate(sqlstate) is Fault.DATA
    assert isinstance(target_error(sqlstate, "says a value"), DataRefused)


@pytest.mark.parametrize("sqlstate", ["42P01", "42703", "42501", "28P01", "0A000", "XX000", "P0001", "3F000"])
def test_everything_else_stops_the_worker(sqlstate: str) -> None:
    assert sort_sqlstate(sqlstate) is Fault.FATAL
    error = target_error(sqlstate, "server says so")
    assert (error.retryable, error.exit_code) == (False, EXIT_NEEDS_PERSON)


@pytest.mark.parametrize("sqlstate", ["P0001", "P0004", "54001"])
def test_what_a_trigger_or_the_parser_says_of_a_row_is_the_rows(sqlstate: str) -> None:
    error = target_error(sqlstate, "says a value")
    assert isinstance(error, DataRefused)
    assert "a value" not in str(error)


def test_a_refused_login_is_not_a_server_that_is_away() -> None:
    refused = target_error(None, 'connection failed: FATAL:  password authentication failed for user "sink"')
    away = target_error(None, "connection failed: Connection refused")
    assert (type(refused), type(away)) == (AccessDenied, TargetUnreachable)
    assert away.exit_code == EXIT_UNREACHABLE


@pytest.mark.parametrize(
    ("sqlstate", "text"),
    [
        ("25006", "cannot execute UPDATE in a read-only transaction"),
        ("0A000", "cannot set transaction read-write mode during recovery"),
    ],
)
def test_a_standby_is_waited_for(sqlstate: str, text: str) -> None:
    error = target_error(sqlstate, text)
    assert (type(error), error.retryable, error.exit_code) == (TargetReadOnly, True, EXIT_UNREACHABLE)


@pytest.mark.parametrize(
    ("text", "remedy"),
    [
        ('pg_hba.conf rejects connection for host "::1"', "pg_hba.conf admit"),
        ('database "x" does not exist', "Create it"),
        ('role "x" is not permitted to log in', "LOGIN"),
    ],
)
def test_a_refused_login_is_told_with_what_mends_it(text: str, remedy: str) -> None:
    error = target_error(None, f"connection failed: FATAL:  {text}")
    assert (type(error), str(error)) == (AccessDenied, f"FATAL: {text}")
    assert remedy in error.remedy


def test_a_data_error_says_where_and_never_what() -> None:
    error = target_error(
        "22P02", 'invalid input syntax for type integer: "canary"', Refusal("22P02", "Invalid", "t", "c")
    )
    assert str(error) == "the target refused a row: Invalid (SQLSTATE 22P02) at table t, column c"
    assert "canary" not in str(target_error("22P02", "canary"))


@pytest.mark.parametrize("kind", ALL, ids=lambda kind: kind.__name__)
def test_every_error_has_a_remedy_of_its_own(kind: type[SinkError]) -> None:
    assert kind is SinkError or kind.remedy != SinkError.remedy
    assert kind.remedy.endswith(".")
    assert kind.__doc__
