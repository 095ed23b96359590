"""What `cdc init` is told by the catalog beyond what every command asks of it, as plain values."""

from __future__ import annotations

from dataclasses import dataclass

from cdc.catalog import Table
from cdc.config import ALL_COLUMNS
from transforms.names import TableName


def listable(table: Table) -> tuple[str, ...]:
    """The columns that an event may list: in the log, and not called `*`, which in a list stands for all."""
    return tuple(column.name for column in table.columns if not column.generated and (column.name,) != ALL_COLUMNS)


@dataclass(frozen=True, slots=True)
class KeyedBy:
    """A constraint or index, and the columns that it is over."""

    name: str
    columns: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class TableFacts:
    """A table that may become an event."""

    name: TableName
    kind: str = "r"
    """pg_class.relkind: `r` table, `p` partitioned."""
    persistence: str = "p"
    """pg_class.relpersistence: `p` permanent, `u` unlogged, `t` temporary."""
    extension: str | None = None
    """The extension that owns it."""
    row_security: bool = False
    size_bytes: int = 0
    """With indexes and large values; of all partitions."""
    toast_bytes: int = 0
    writes: int = 0
    """Rows inserted, updated and deleted since the server's counters began."""
    parents: tuple[TableName, ...] = ()
    stored: tuple[str, ...] = ()
    """Generated columns whose values are kept."""
    virtual: tuple[str, ...] = ()
    """Generated columns that are computed when they are read."""
    toastable: frozenset[str] = frozenset()
    """Columns whose values may be kept out of line."""
    deferrable_key: KeyedBy | None = None
    unique_indexes: tuple[KeyedBy, ...] = ()
    """Those that may name a row: valid, immediate, total, and over columns only."""
    partition_columns: tuple[str | None, ...] = ()
    """What the table is partitioned by; None stands for an expression."""
