"""The replication slot. All functions raise SourceError."""

from __future__ import annotations

from dataclasses import dataclass

from cdc.source.connection import Source
from transforms.position import LSN


@dataclass(frozen=True, slots=True)
class Slot:
    """A replication slot as `pg_replication_slots` shows it."""

    plugin: str
    database: str
    confirmed: LSN
    restart: LSN
    wal_status: str
    active_pid: int | None
    retained_bytes: int
    safe_bytes: int | None
    """How much more may be written before the slot is lost; None when nothing limits it."""


def find_slot(source: Source, name: str) -> Slot | None:
    """The slot as it stands, or None."""
    rows = source.query(
        "SELECT plugin, database, confirmed_flush_lsn::text, restart_lsn::text, wal_status, active_pid,"
        " CASE WHEN pg_is_in_recovery() THEN 0"
        " ELSE greatest(0, pg_current_wal_lsn() - restart_lsn) END::bigint, safe_wal_size"
        " FROM pg_replication_slots WHERE slot_name = %s",
        [name],
    )
    if not rows:
        return None
    plugin, database, confirmed, restart, wal_status, pid, retained, safe = rows[0]
    return Slot(
        plugin or "",
        database or "",
        LSN.parse(confirmed or "0/0"),
        LSN.parse(restart or "0/0"),
        wal_status or "",
        pid,
        int(retained or 0),
        safe,
    )


def create_slot(source: Source, name: str) -> LSN:
    """Create the slot; returns the position from which it holds all changes. Waits for open transactions."""
    [(position,)] = source.query("SELECT lsn::text FROM pg_create_logical_replication_slot(%s, 'pgoutput')", [name])
    return LSN.parse(position)


def drop_slot(source: Source, name: str) -> None:
    """Drop the slot if it is there."""
    source.query("SELECT pg_drop_replication_slot(slot_name) FROM pg_replication_slots WHERE slot_name = %s", [name])
