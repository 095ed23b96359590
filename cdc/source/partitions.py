"""The partitions of tables, and which of them came with rows that the log does not tell. Raises SourceError."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from cdc.source.connection import Source

# A partition that was made as one has its link to its parent and its system columns, which nothing alters, from one
# transaction; an attached one has not. One that is made, filled and attached in one transaction looks like the former.
_PARTITIONS: Final = """
    WITH RECURSIVE member AS (
        SELECT oid AS root, oid, false AS attached FROM unnest(%(oids)s::oid[]) AS t (oid)
        UNION ALL
        SELECT member.root, i.inhrelid, member.attached OR i.xmin::text <> a.xmin::text
        FROM member
        JOIN pg_class c ON c.oid = member.oid AND c.relkind = 'p'
        JOIN pg_inherits i ON i.inhparent = member.oid AND NOT i.inhdetachpending
        JOIN pg_attribute a ON a.attrelid = i.inhrelid AND a.attnum = -1
    )
    SELECT member.root::bigint, member.oid::bigint, attached FROM member
    JOIN pg_class c ON c.oid = member.oid AND c.relkind <> 'p'
    WHERE member.root <> member.oid
"""

Partitions = dict[int, dict[int, bool]]
"""A table's OID -> the OIDs of its partitions that hold rows, at any depth, and whether each was attached."""


def find_partitions(source: Source, tables: Sequence[int]) -> Partitions:
    """Those of tables, which have none where they are not partitioned."""
    found: Partitions = {oid: {} for oid in tables}
    for root, oid, attached in source.query(_PARTITIONS, {"oids": list(tables)}):
        found[root][oid] = attached
    return found
