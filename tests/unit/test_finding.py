"""How a finding is told to people."""

from __future__ import annotations

from transforms.finding import Finding

FINDING = Finding(
    "error",
    "wal_level",
    "replica, must be logical",
    "ALTER SYSTEM SET wal_level = 'logical';\n-- then the server has to be restarted",
)


def test_what_is_run_stays_in_one_piece_and_a_comment_stays_a_comment() -> None:
    assert FINDING.lines(30) == [
        "error    wal_level: replica,",
        "         must be logical",
        "         ALTER SYSTEM SET wal_level = 'logical';",
        "         -- then the server",
        "         -- has to be",
        "         -- restarted",
    ]


def test_where_nobody_looks_nothing_is_wrapped() -> None:
    assert FINDING.lines() == [
        "error    wal_level: replica, must be logical",
        "         ALTER SYSTEM SET wal_level = 'logical';",
        "         -- then the server has to be restarted",
    ]
