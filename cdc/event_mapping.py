"""An event of the configuration, checked against the catalog: what is published of which rows."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

from cdc.catalog import (
    Column,
    ColumnUnfit,
    ConditionUnfit,
    KeyUnfit,
    OldRowsNotInLog,
    ShapeUnfit,
    Table,
    TableUnfit,
    check_followed,
    check_identity,
    identity_for,
)
from cdc.config import EventConfig
from cdc.shaping import mistakes_for, read_where
from transforms.condition.columns import columns_of
from transforms.condition.refusal import ConditionRefused
from transforms.condition.tree import Condition
from transforms.config import key_path
from transforms.masking import MaskName, Masks
from transforms.names import TableName

if TYPE_CHECKING:
    from cdc.related.mapping import EmbedMapping


class MappedField(NamedTuple):
    """A field of an event's state."""

    name: str
    """As it is published."""
    column: Column
    masked: MaskName | None = None


@dataclass(frozen=True, slots=True)
class EventMapping:
    """An event of the configuration, checked against the catalog: what is published of a table's rows."""

    label: str
    stream: str
    table: Table
    fields: tuple[MappedField, ...]
    """Of the state, in their order."""
    key: tuple[str, ...]
    """Columns."""
    truncate: str
    unchanged_toast: str
    where: str | None = None
    """As it was written."""
    condition: Condition | None = None
    """The same, read for the columns as the catalog has them."""
    previous: bool = False
    transform: str | None = None
    embeds: tuple[EmbedMapping, ...] = ()

    @property
    def columns(self) -> tuple[Column, ...]:
        """Those that are published."""
        return tuple(field.column for field in self.fields)

    @property
    def read(self) -> tuple[Column, ...]:
        """Those, and behind them those that only `where` looks at."""
        listed = {column.name for column in self.columns}
        judged = columns_of(self.condition) if self.condition is not None else ()
        by_name = {column.name: column for column in self.table.columns}
        return (*self.columns, *(by_name[name] for name in judged if name not in listed))

    @property
    def ways(self) -> dict[str, tuple[EmbedMapping, ...]]:
        """The path of each embed, at any depth (`lines.product`) -> those around it, from the outermost on, and it."""
        return {way[-1].title: way for embed in self.embeds for way in embed.whole}

    @property
    def tables(self) -> dict[str, Table]:
        """The table of each embed, by its path; the event's own under no name."""
        return {"": self.table} | {title: way[-1].table for title, way in self.ways.items()}

    @property
    def read_columns(self) -> dict[str, Column]:
        """All columns of all tables: the event's own by their names, those of embeds behind the embed's path."""
        related = {
            f"{title}.{name}": column
            for title, way in self.ways.items()
            for name, column in way[-1].read_columns.items()
        }
        return {column.name: column for column in self.read} | related

    @property
    def read_by_table(self) -> dict[TableName, list[Column]]:
        """The columns of each table that are read, those by which related rows are found among them."""
        found = {self.table.name: [*self.read, *(theirs for embed in self.embeds for _, theirs in embed.on)]}
        for way in self.ways.values():
            found.setdefault(way[-1].table.name, []).extend(way[-1].read_columns.values())
        return found

    @property
    def numbers(self) -> dict[str, int]:
        """Column -> its number in its table; see `read_columns`."""
        return {name: column.number for name, column in self.read_columns.items()}

    @property
    def relations(self) -> dict[str, list[object]]:
        """How each embed is found and ordered, by its path: its table's OID, and the numbers of the columns for it."""
        return {
            embed.title: [
                embed.table.oid,
                embed.many,
                [[own.number, theirs.number] for own, theirs in embed.on],
                [column.number for column in embed.order],
            ]
            for embed in (way[-1] for way in self.ways.values())
        }

    def other_relations(self, before: Mapping[str, object]) -> list[str]:
        """The embeds that were there and whose rows are found in another way now."""
        return [title for title, relation in self.relations.items() if before.get(title, relation) != relation]

    def numbers_in(self, tables: Mapping[TableName, Table]) -> dict[str, int]:
        """The numbers that all columns of its tables have now; see `read_columns`."""
        return {
            f"{title}.{column.name}" if title else column.name: column.number
            for title, table in self.tables.items()
            for column in (tables[table.name].columns if table.name in tables else ())
        }

    def replaced_columns(self, numbers: Mapping[str, int]) -> list[str]:
        """Columns that have other numbers there: another one was given the name, with values that no event tells."""
        return [name for name, number in self.numbers.items() if numbers.get(name, number) != number]

    def parts(self, of_types: Mapping[int, Mapping[str, str]]) -> dict[str, dict[str, str]]:
        """Column -> what its values are written with besides; see `type_parts`."""
        found = ((name, of_types.get(column.type.base_oid)) for name, column in self.read_columns.items())
        return {name: dict(parts) for name, parts in found if parts}

    @property
    def names(self) -> tuple[str, ...]:
        """The fields of the state, in their order."""
        return tuple(field.name for field in self.fields)

    @property
    def key_fields(self) -> tuple[MappedField, ...]:
        """Those of the key, in its order."""
        by_column = {field.column.name: field for field in self.fields}
        return tuple(by_column[name] for name in self.key)

    @property
    def key_is_masked(self) -> bool:
        """Whether the key, as it is published, does not tell which row it is of."""
        return any(field.masked for field in self.key_fields)

    def shaping(self, masks: Masks) -> dict[str, str]:
        """What a change of makes other rows, or other values, of the same table: what -> its fingerprint.

        Another `placing` makes neither, only other messages that give no entry of the event.
        """
        found = {"placing": f"{self.unchanged_toast} {self.truncate}"}
        if self.transform is not None:
            found["transform"] = self.transform
        if self.where is not None and self.condition is not None:
            types = {column.name: column.type.pg_type for column in self.read}
            judged = [types[name] for name in columns_of(self.condition)]
            found |= {"where": fingerprint_of(self.where), "judged": fingerprint_of(json.dumps(judged))}
        related = (field for way in self.ways.values() for field in way[-1].fields)
        hashes = any(field.masked == "hash" for field in (*self.fields, *related))
        return found | {"hash_key": masks.fingerprint} if hashes else found


def fingerprint_of(where: str) -> str:
    """What tells a condition, or its types, from other ones; it may hold values, and is kept nowhere itself."""
    return hashlib.sha256(where.encode()).hexdigest()[:16]


def map_event(event: EventConfig, table: Table | None) -> EventMapping:
    """Check an event against its table. Raises TableUnfit and its kinds."""
    where = f"events.{event.name}.table"
    if table is None:
        raise TableUnfit(f"{where}: there is no table {event.table} that this role may see")
    check_followed(where, table)
    names = [column.name for column in table.columns if not column.generated]
    columns = _columns(event, table, names if event.columns == ("*",) else event.columns)
    check_identity(table)  # behind them: a table whose key column was dropped has none any more
    key = event.key or table.primary_key
    _check_key(event, table, key, columns)
    if event.previous and table.without_old_rows:
        unfit = ", ".join(map(str, table.without_old_rows))
        raise OldRowsNotInLog(
            f"events.{event.name}.previous: the replica identity of {unfit} is not FULL, so the log does not tell rows"
            " as they were",
            remedy=" ".join(f"ALTER TABLE {name} REPLICA IDENTITY FULL;" for name in table.without_old_rows),
        )
    for path, problem in mistakes_for(event, [column.name for column in columns], key):
        raise ShapeUnfit(f"{key_path('events', event.name, *path)}: {problem}")
    fields = (
        MappedField(event.rename.get(column.name, column.name), column, event.mask.get(column.name))
        for column in columns
    )
    condition = None if event.where is None else _condition(event, event.where, table)
    return EventMapping(
        event.label,
        event.stream,
        table,
        tuple(fields),
        key,
        event.truncate,
        event.unchanged_toast,
        event.where,
        condition,
        event.previous,
        event.transform,
    )


def _condition(event: EventConfig, where: str, table: Table) -> Condition:
    try:
        return read_where(where, {column.name: column.type for column in table.columns if not column.generated})
    except ConditionRefused as error:
        raise ConditionUnfit(f"events.{event.name}.where: {error}", remedy=error.remedy) from error


def _columns(event: EventConfig, table: Table, names: Sequence[str]) -> tuple[Column, ...]:
    by_name = {column.name: column for column in table.columns}
    where = f"events.{event.name}.columns"
    missing = [name for name in names if name not in by_name]
    if missing:
        told = f"{table.name} has no column {', '.join(missing)} (it has {', '.join(by_name)})"
        raise ColumnUnfit(f"{where}: {told}", missing, [(event.rename.get(name, name),) for name in missing])
    generated = [name for name in names if by_name[name].generated]
    if generated:
        told = f"{', '.join(generated)} is generated, and generated columns are not in the log"
        raise ColumnUnfit(f"{where}: {told}", generated, [(event.rename.get(name, name),) for name in generated])
    return tuple(by_name[name] for name in names)


def _check_key(event: EventConfig, table: Table, key: Sequence[str], columns: Sequence[Column]) -> None:
    where = f"events.{event.name}.key"
    if not key:
        raise KeyUnfit(f"{where}: {table.name} has no primary key, so the event needs a `key`")
    by_name = {column.name: column for column in table.columns}
    listed = {column.name for column in columns}
    for name in key:
        if name not in by_name:
            raise KeyUnfit(f"{where}: {table.name} has no column {name}")
        if name not in listed:
            raise KeyUnfit(f"{where}: {name} must be among the event's columns")
        if not by_name[name].not_null:
            raise KeyUnfit(f"{where}: {table.name}.{name} may be NULL")
    if frozenset(key) not in table.unique_keys:
        raise KeyUnfit(f"{where}: no unique index of {table.name} is over just ({', '.join(key)})")
    if table.kind != "p" and not frozenset(key) <= table.identity_columns:
        raise KeyUnfit(f"{where}: the replica identity of {table.name} does not hold ({', '.join(key)})")
    unfit = [leaf for leaf, columns in table.leaf_identities.items() if not frozenset(key) <= columns]
    if unfit:
        raise KeyUnfit(
            f"{where}: the replica identity of partition {', '.join(map(str, unfit))} does not hold ({', '.join(key)}),"
            " and each partition has its own",
            remedy=" ".join(f"ALTER TABLE {leaf} REPLICA IDENTITY {identity_for(table, key)};" for leaf in unfit),
        )
