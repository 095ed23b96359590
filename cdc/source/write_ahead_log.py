"""The source's log: where it ends, and our own messages in it. All functions raise SourceError."""

from __future__ import annotations

from cdc.source.connection import Source, translated_errors
from transforms.position import LSN


def insert_position(source: Source) -> LSN:
    """The end of what has been written to the log."""
    [(position,)] = source.query("SELECT pg_current_wal_insert_lsn()::text")
    return LSN.parse(position)


def flush_position(source: Source) -> LSN:
    """The end of what is safely written: what a reader can have. (Behind the insert position nothing may end.)"""
    [(position,)] = source.query("SELECT pg_current_wal_flush_lsn()::text")
    return LSN.parse(position)


def emit_message(source: Source, prefix: str, content: bytes) -> None:
    """Write a transactional logical message; it comes back through the slot.

    It does not wait for a synchronous standby: a mark is of no use to one, and must not hang on one.
    """
    with translated_errors(), source.connection.transaction():
        source.connection.execute("SET LOCAL synchronous_commit = local")
        source.connection.execute("SELECT pg_logical_emit_message(true, %s, %s::text)", (prefix, content.decode()))
