"""The source's transactions: which of them a query sees, and which still write. All functions raise SourceError."""

from __future__ import annotations

from collections.abc import Sequence

from cdc.snapshot.visibility import Snapshot
from cdc.source.connection import Source

_WRITERS = """
    SELECT DISTINCT l.virtualtransaction FROM pg_locks l
    WHERE l.locktype = 'relation' AND l.granted AND l.mode = 'RowExclusiveLock'
      AND l.database = (SELECT oid FROM pg_database WHERE datname = current_database())
      AND l.relation IN (SELECT t.relid FROM unnest(%(oids)s::oid[]) AS r, pg_partition_tree(r) AS t
                         UNION SELECT unnest(%(oids)s::oid[]))
"""


def current_snapshot(source: Source) -> Snapshot:
    """What a query would see now."""
    [(text,)] = source.query("SELECT pg_current_snapshot()::text")
    return Snapshot.parse(text)


def writers(source: Source, tables: Sequence[int]) -> frozenset[str]:
    """The transactions that now hold a lock with which rows of these tables (OIDs) are written.

    A prepared transaction keeps its locks, so it is among them. Values only serve to be compared.
    """
    return frozenset(name for (name,) in source.query(_WRITERS, {"oids": list(tables)}))
