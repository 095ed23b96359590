"""The replication slot. All functions raise SourceError."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from cdc.source.connection import Source
from transforms.position import LSN

FAILOVER_VERSION: Final = 170_000
"""From here on Postgres keeps copies of slots on standbys, of those that are made for it."""

_INVALIDATED: Final = {
    "wal_removed": "Postgres removed WAL that it still needed (max_slot_wal_keep_size)",
    "rows_removed": "Postgres removed rows of the catalog that it still needed (hot_standby_feedback is off)",
    "wal_level_insufficient": "wal_level was lowered below logical",
    "idle_timeout": "nobody read it for longer than idle_replication_slot_timeout",
}
"""Source: https://www.postgresql.org/docs/current/view-pg-replication-slots.html (invalidation_reason)"""

_FIND: Final = """
    SELECT plugin, database, confirmed_flush_lsn::text, restart_lsn::text, wal_status, active_pid,
           CASE WHEN pg_is_in_recovery() THEN 0 ELSE greatest(0, pg_current_wal_lsn() - restart_lsn) END::bigint,
           safe_wal_size, two_phase,
           (to_jsonb(s) ->> 'failover')::boolean,  -- these are not in all versions
           to_jsonb(s) ->> 'invalidation_reason', (to_jsonb(s) ->> 'conflicting')::boolean
    FROM pg_replication_slots s WHERE slot_name = %s
"""


@dataclass(frozen=True, slots=True)
class Slot:
    """A replication slot as `pg_replication_slots` shows it."""

    plugin: str
    """Empty: it is a physical one."""
    database: str
    confirmed: LSN
    restart: LSN
    wal_status: str
    active_pid: int | None
    retained_bytes: int
    safe_bytes: int | None
    """How much more may be written before the slot is lost; None when nothing limits it."""
    two_phase: bool = False
    """It sends prepared transactions before they are committed."""
    failover: bool | None = None
    """Whether standbys keep a copy of it; None: the server knows of no such thing."""
    lost_because: str | None = None
    """Why it can be read no more; None: it can."""


def find_slot(source: Source, name: str) -> Slot | None:
    """The slot as it stands, or None."""
    rows = source.query(_FIND, [name])
    if not rows:
        return None
    plugin, database, confirmed, restart, status, pid, retained, safe, two_phase, failover, reason, conflict = rows[0]
    return Slot(
        plugin or "",
        database or "",
        LSN.parse(confirmed or "0/0"),
        LSN.parse(restart or "0/0"),
        status or "",
        pid,
        int(retained or 0),
        safe,
        bool(two_phase),
        failover,
        _why_lost(status, reason, bool(conflict)),
    )


def _why_lost(wal_status: str | None, reason: str | None, conflict: bool) -> str | None:
    """In words. Before 17 Postgres does not tell the reason, before 16 there is but one."""
    if reason is not None:
        return _INVALIDATED.get(reason, f"Postgres invalidated it ({reason})")
    if conflict:
        return "it was in conflict with recovery on a standby"
    return _INVALIDATED["wal_removed"] if wal_status == "lost" else None


def create_slot(source: Source, name: str) -> LSN:
    """Create the slot; returns the position from which it holds all changes. Waits for open transactions.

    Where the server can keep copies of it on standbys, it may: with no standby that does so it costs nothing.
    """
    options = ", failover => true" if source.server_version() >= FAILOVER_VERSION else ""
    [(position,)] = source.query(
        f"SELECT lsn::text FROM pg_create_logical_replication_slot(%s, 'pgoutput'{options})", [name]
    )
    return LSN.parse(position)


def drop_slot(source: Source, name: str) -> None:
    """Drop the slot if it is there."""
    source.query("SELECT pg_drop_replication_slot(slot_name) FROM pg_replication_slots WHERE slot_name = %s", [name])
