"""What the source's catalog says of a table, as plain values, and what may be asked of it.

statecast must never break the application that owns a table: Postgres accepts a publication that makes the
application's own UPDATE fail afterwards, so these rules are checked before a publication is touched.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field

from transforms.column_type import ColumnType
from transforms.errors import StatecastError
from transforms.names import TableName


class TableUnfit(StatecastError):
    """A mapped table is not there, or not of a kind that can be followed."""

    remedy = "Correct events.*.table in the configuration, or grant the reader's role USAGE on the schema."


class IdentityMissing(TableUnfit):
    """Publishing the table would make the application's own UPDATE and DELETE fail."""

    remedy = "Give the table a primary key, or run `ALTER TABLE ... REPLICA IDENTITY USING INDEX ...`."


FieldPath = tuple[str, ...]
"""The published names that lead to a field: of related rows those of the fields around it come first."""


class ColumnUnfit(TableUnfit):
    """Mapped columns are not there, or not in the log."""

    remedy = "Correct events.*.columns in the configuration."

    def __init__(
        self, message: str, columns: Sequence[str] = (), fields: Sequence[FieldPath] = (), *, remedy: str | None = None
    ) -> None:
        """`columns`: their names in the table; `fields`: what they fill, or would fill, of the event's state."""
        super().__init__(message, remedy=remedy)
        self.columns, self.fields = tuple(columns), tuple(fields)


class ShapeUnfit(ColumnUnfit):
    """What is to become of the table's rows does not fit its columns."""

    remedy = "Correct what is named above in the configuration."


class ConditionUnfit(ShapeUnfit):
    """The columns that the event's `where` judges rows by are not there, or of other types."""


class OldRowsNotInLog(TableUnfit):
    """An event is to carry old states, and the log does not tell rows as they were."""

    remedy = "Run `ALTER TABLE ... REPLICA IDENTITY FULL`, or leave `previous` out."


class KeyUnfit(TableUnfit):
    """The event's key does not name a row in every change of the log."""

    remedy = "Leave `key` out to use the primary key, or name columns that are unique, NOT NULL and in the identity."


class KeyNotInLog(KeyUnfit):
    """Rows in the log do not tell their key: they can never be read, so the streams have a hole there."""


@dataclass(frozen=True, slots=True)
class Column:
    """A column of a table."""

    name: str
    type: ColumnType
    not_null: bool
    generated: bool
    number: int = 0
    """pg_attribute.attnum: a column that is dropped and added again has another one."""


@dataclass(frozen=True, slots=True)
class Table:
    """A table as the catalog has it."""

    oid: int
    name: TableName
    kind: str
    """pg_class.relkind: `r` table, `p` partitioned."""
    persistence: str
    columns: tuple[Column, ...]
    primary_key: tuple[str, ...]
    unique_keys: tuple[frozenset[str], ...]
    """The column sets of valid, immediate, total unique indexes."""
    identity: str
    """pg_class.relreplident: `d` default, `n` nothing, `f` full, `i` index."""
    identity_columns: frozenset[str]
    """The columns that a delete in the log carries; empty when there is no usable identity."""
    leaves_without_identity: tuple[TableName, ...]
    """Partitions whose UPDATE and DELETE a publication would make fail."""
    estimated_rows: int
    children: tuple[TableName, ...] = ()
    """Tables that inherit from it, and from these; partitions do not count."""
    leaves_without_log: tuple[TableName, ...] = ()
    """Partitions that are unlogged or foreign tables."""
    ancestors: tuple[TableName, ...] = ()
    """The partitioned tables that it is a partition of."""
    leaf_identities: Mapping[TableName, frozenset[str]] = field(default_factory=dict)
    """Partitions that have one -> the columns that a delete in the log carries: it is theirs that counts."""
    without_old_rows: tuple[TableName, ...] = ()
    """Itself, or those of its partitions, whose identity is not FULL: the log does not tell rows as they were."""


TypeParts = Mapping[str, Mapping[str, str]]
"""Column -> part of its type -> how that is written."""


def rewritten_columns(before: TypeParts, now: TypeParts) -> list[str]:
    """Columns with values that are written otherwise now, though no row was: a part that was there has another text."""
    return [
        name
        for name, parts in now.items()
        if any(before.get(name, {}).get(part, text) != text for part, text in parts.items())
    ]


def check_identity(table: Table) -> None:
    """Raise IdentityMissing where publishing the table would break its owner's statements."""
    lacking = [table.name] if table.kind != "p" and not table.identity_columns else []
    lacking += table.leaves_without_identity
    if lacking:
        names = ", ".join(str(name) for name in lacking)
        raise IdentityMissing(
            f"{names} has no replica identity: once published, the application's UPDATE and DELETE on it would fail"
        )


def check_own_log(table: Table, published: Collection[TableName]) -> None:
    """Raise TableUnfit where a table's changes are published as those of one that it is a partition of."""
    roots = [ancestor for ancestor in table.ancestors if ancestor in published]
    if roots:
        names = ", ".join(map(str, roots))
        raise TableUnfit(
            f"{table.name} is a partition of {names}, which is published too: in the log its changes are not its own",
            remedy=f"Map {names} instead of {table.name}; or take {names} out of the publication and the configuration,"
            f" then `cdc snapshot` of the events of {table.name}.",
        )


def check_followed(where: str, table: Table) -> None:
    """Raise TableUnfit where a table's changes, or some of them, are in no log; `where`: who wants them."""
    if table.kind not in ("r", "p"):
        raise TableUnfit(f"{where}: {table.name} is not a table (views and foreign tables have no log)")
    if table.persistence != "p":
        raise TableUnfit(f"{where}: {table.name} is unlogged or temporary, its changes are not in the log")
    if table.leaves_without_log:
        leaves = ", ".join(map(str, table.leaves_without_log))
        raise TableUnfit(
            f"{where}: partition {leaves} of {table.name} is unlogged or a foreign table, its changes are not in the"
            " log",
            remedy="Have its owner run `ALTER TABLE ... SET LOGGED`, or detach it; then `cdc snapshot` of the event.",
        )


def identity_for(table: Table, key: Sequence[str]) -> str:
    """The replica identity that tells this key: the default one where the primary key does."""
    return "DEFAULT" if frozenset(key) <= frozenset(table.primary_key) else "FULL"
