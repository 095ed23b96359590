"""What the words of a server or of libpq mean for us."""

from __future__ import annotations

import pytest

from cdc.errors import (
    AccessDenied,
    SourceBusy,
    SourceError,
    SourceRefused,
    SourceUnreachable,
    ValueRefused,
    source_error,
)

FAILED = 'connection failed: connection to server at "10.0.0.1", port 5432 failed: '


@pytest.mark.parametrize(
    ("sqlstate", "message", "expected"),
    [
        (None, FAILED + "Connection refused", SourceUnreachable),
        (None, FAILED + "FATAL:  the database system is starting up", SourceUnreachable),
        (None, FAILED + "FATAL:  sorry, too many clients already", SourceBusy),
        (None, FAILED + 'FATAL:  number of requested standby connections exceeds "max_wal_senders"', SourceBusy),
        (None, FAILED + "FATAL:  permission denied to start WAL sender", AccessDenied),
        (None, FAILED + 'FATAL:  password authentication failed for user "cdc"', AccessDenied),
        (None, FAILED + "fe_sendauth: no password supplied", AccessDenied),
        (None, FAILED + 'FATAL:  no pg_hba.conf entry for host "10.0.0.2", user "cdc"', AccessDenied),
        (None, FAILED + 'FATAL:  role "cdc" does not exist', AccessDenied),
        (None, FAILED + 'FATAL:  role "cdc" is not permitted to log in', AccessDenied),
        (None, FAILED + 'FATAL:  database "shop" does not exist', AccessDenied),
        (None, FAILED + 'FATAL:  permission denied for database "shop"', AccessDenied),
        ("08006", "server closed the connection unexpectedly", SourceUnreachable),
        ("57014", "canceling statement due to statement timeout", SourceBusy),
        ("55P03", "canceling statement due to lock timeout", SourceBusy),
        ("42501", "permission denied for table customers", AccessDenied),
        ("42P01", 'relation "customers" does not exist', SourceRefused),
    ],
)
def test_an_error_is_of_the_kind_that_helps(sqlstate: str | None, message: str, expected: type[SourceError]) -> None:
    assert type(source_error(sqlstate, message)) is expected


@pytest.mark.parametrize(
    ("message", "shown"),
    [
        ('invalid input value for enum public.mood: "PLANTED"', "invalid input value for enum public.mood: ..."),
        ('invalid input syntax for type integer: "PLANTED\nPLANTED"', "invalid input syntax for type integer: ..."),
        (
            "ungültige Eingabesyntax für Typ integer: \u201ePLANTED\u201c",
            "ungültige Eingabesyntax für Typ integer: ...",
        ),
        (
            "syntaxe en entrée invalide pour le type integer : « PLANTED »",
            "syntaxe en entrée invalide pour le type integer : ...",
        ),
        ('value "PLANTED "" x" is out of range for type smallint', "value ... is out of range for type smallint"),
    ],
)
def test_a_value_that_a_type_does_not_take_is_not_repeated(message: str, shown: str) -> None:
    error = source_error("22P02", message)
    assert isinstance(error, ValueRefused)
    assert str(error) == f"{shown} (SQLSTATE 22P02)"
