"""The source's transactions: which of them a query sees, and which still write. All functions raise SourceError."""

from __future__ import annotations

from collections.abc import Sequence

from cdc.snapshot.visibility import Snapshot
from cdc.source.connection import Source

_WRITERS = """
    WITH RECURSIVE branch AS (  -- pg_partition_tree would wait for a partition that somebody alters
        SELECT unnest(%(oids)s::oid[]) AS oid
        UNION SELECT i.inhrelid FROM branch JOIN pg_inherits i ON i.inhparent = branch.oid
                                            JOIN pg_partitioned_table p ON p.partrelid = branch.oid
    )
    SELECT DISTINCT l.virtualtransaction FROM pg_locks l
    WHERE l.locktype = 'relation' AND l.granted AND l.mode = 'RowExclusiveLock'
      AND l.database = (SELECT oid FROM pg_database WHERE datname = current_database())
      AND l.relation IN (SELECT oid FROM branch)
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
