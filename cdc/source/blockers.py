"""Who a session waits for. Raises SourceError."""

from __future__ import annotations

from typing import Final

from cdc.source.connection import Source

_BLOCKERS: Final = """
    SELECT pid, a.datname::text, a.usename::text, a.state, a.xact_start::timestamptz(0)::text
    FROM unnest(pg_blocking_pids(%s)) AS pid LEFT JOIN pg_stat_activity a USING (pid) ORDER BY a.xact_start, pid
"""


def blockers(source: Source, pid: int) -> list[str]:
    """In words, each session that the server process `pid` waits for; what this role may not see is left out."""
    return [_told(*row) for row in source.query(_BLOCKERS, [pid])]


def _told(pid: int, database: str | None, user: str | None, state: str | None, began: str | None) -> str:
    if pid == 0:
        return "a prepared transaction (SELECT * FROM pg_prepared_xacts)"
    known = [f"user {user}" if user else "", f"database {database}" if database else "", state or ""]
    if began:
        known.append(f"in a transaction since {began}")
    return f"PID {pid} ({', '.join(filter(None, known))})"
