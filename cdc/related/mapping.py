"""Embeds as they stand: those of the configuration, checked against the catalog."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Final

from cdc.catalog import (
    Column,
    ColumnUnfit,
    IdentityMissing,
    KeyUnfit,
    Table,
    TableUnfit,
    check_followed,
    check_identity,
)
from cdc.config import EventConfig
from cdc.event_mapping import EventMapping, MappedField, map_event
from cdc.related.configuration import EMBED, EmbedConfig
from transforms.column_type import TEXT_TYPE, ColumnType
from transforms.config import key_path
from transforms.masking import Masks
from transforms.names import IDENTIFIER_MAX_BYTES, TableName, quote_identifier
from transforms.nested import NestedField, Nesting
from transforms.schema import EmbedSchema, SchemaColumn

_KINDS: Final = {
    **dict.fromkeys((20, 21, 23, 26, 1700), "number"),  # int8 int2 int4 oid numeric
    **dict.fromkeys((19, 25, 1042, 1043), "text"),  # name text bpchar varchar
}
"""Types that Postgres compares with each other though they differ."""


class RelationUntold(TableUnfit):
    """The log does not tell of a related row's change or end to which rows it belonged."""


@dataclass(frozen=True, slots=True)
class EmbedMapping:
    """Rows of one table within the state of an event."""

    path: tuple[str, ...]
    """The fields' names from the state down to this one: `lines`, `product`."""
    table: Table
    on: tuple[tuple[Column, Column], ...]
    """Columns of this table, and those of the table around it, that have the same values."""
    fields: tuple[MappedField, ...]
    order: tuple[Column, ...]
    """The key that rows are in the order of."""
    many: bool
    nested: tuple[EmbedMapping, ...]

    @property
    def name(self) -> str:
        """The field of which it is the value."""
        return self.path[-1]

    @property
    def title(self) -> str:
        """Its path in words: `lines.product`."""
        return ".".join(self.path)

    @property
    def columns(self) -> tuple[Column, ...]:
        """Those that are published."""
        return tuple(field.column for field in self.fields)

    def nesting(self, masks: Masks) -> Nesting:
        """What its values are made of."""
        fields = tuple(NestedField(field.name, field.column.type, masks.of(field.masked)) for field in self.fields)
        return Nesting(self.name, self.many, fields, tuple(each.nesting(masks) for each in self.nested))

    @property
    def whole(self) -> Iterator[tuple[EmbedMapping, ...]]:
        """The way to it and to each that is nested in it, at any depth: itself, then what is around the last one."""
        yield (self,)
        for each in self.nested:
            yield from ((self, *way) for way in each.whole)

    @property
    def read_columns(self) -> dict[str, Column]:
        """All of this table's columns that a value depends on, by name."""
        inner = [parent for each in self.nested for _, parent in each.on]
        found = (*self.columns, *(own for own, _ in self.on), *inner, *self.order)
        return {column.name: column for column in found}

    @property
    def schema(self) -> SchemaColumn:
        """What consumers are told of it."""
        columns = [*map(schema_column, self.fields), *(each.schema for each in self.nested)]
        embed = EmbedSchema(self.many, self._published_key, tuple(columns))
        return SchemaColumn(self.name, "jsonb", "jsonb", nullable=not self.many, embed=embed)

    @property
    def _published_key(self) -> tuple[str, ...]:
        """The key's fields, if they tell the rows of one parent apart: all but what these have in common anyway."""
        told = {field.column.name: field.name for field in self.fields if field.masked in (None, "hash")}
        common = {own.name for own, _ in self.on}
        needed = {column.name for column in self.order} - common
        if not needed or not needed <= told.keys():
            return ()
        return tuple(told[column.name] for column in self.order if column.name in told)


def schema_column(field: MappedField) -> SchemaColumn:
    """What consumers are told of a field."""
    column = field.column
    type_ = TEXT_TYPE if field.masked in ("hash", "redact") else column.type
    nullable = not column.not_null or field.masked == "null"
    return replace(SchemaColumn.of(field.name, type_, nullable=nullable), masked=field.masked)


def map_whole(event: EventConfig, tables: Mapping[TableName, Table]) -> EventMapping:
    """Check an event and its embeds against their tables. Raises TableUnfit and its kinds."""
    mapping = map_event(event, tables.get(event.table))
    if taken := [embed.name for embed in event.embeds if embed.name in mapping.names]:
        where = key_path("events", event.name, EMBED, taken[0])
        raise ColumnUnfit(f"{where}: the event has a column of this name", remedy="Give the embed another name.")
    embeds = [_map(("events", event.name), (), embed, mapping.table, tables) for embed in event.embeds]
    return replace(mapping, embeds=tuple(embeds))


def tables_of(event: EventConfig) -> tuple[TableName, ...]:
    """The tables that an event is made of, its own first."""
    return (event.table, *_tables_of(event.embeds))


def _tables_of(embeds: Sequence[EmbedConfig]) -> Iterator[TableName]:
    for embed in embeds:
        yield embed.table
        yield from _tables_of(embed.embeds)


def _map(
    section: tuple[str, ...],
    way: tuple[str, ...],
    embed: EmbedConfig,
    around: Table,
    tables: Mapping[TableName, Table],
) -> EmbedMapping:
    section, way = (*section, EMBED, embed.name), (*way, embed.name)
    where = key_path(*section)
    table = tables.get(embed.table)
    if table is None:
        raise TableUnfit(f"{where}.table: there is no table {embed.table} that this role may see")
    check_followed(f"{where}.table", table)

    def found(key: str, of: Table, names: Sequence[str]) -> tuple[Column, ...]:
        by_name = {column.name: column for column in of.columns}
        if missing := [name for name in names if name not in by_name]:
            told = f"{of.name} has no column {', '.join(missing)} (it has {', '.join(by_name)})"
            fields = [(*way, embed.rename.get(name, name)) for name in missing] if key == "columns" else [way]
            raise ColumnUnfit(f"{where}.{key}: {told}", missing, fields)
        return tuple(by_name[name] for name in names)

    columns = found("columns", table, embed.columns)
    own, outer = found("on", table, tuple(embed.on)), found("on", around, tuple(embed.on.values()))
    if generated := [column.name for column in own if column.generated]:
        told = f"{', '.join(generated)} is generated, and generated columns are not in the log"
        raise ColumnUnfit(f"{where}.on: {told}", generated, [way])
    for column, parent in zip(own, outer, strict=True):
        if _kind(column.type) != _kind(parent.type):
            told = (
                f"{table.name}.{column.name} is of type {column.type.pg_type} and {around.name}.{parent.name} of"
                f" {parent.type.pg_type}, which cannot be compared"
            )
            raise ColumnUnfit(f"{where}.on: {told}", [column.name], [way])
    _expect_identity(table, own)
    _expect_relation_told(f"{where}.on", table, own)
    order = _order(f"{where}.table", table)
    fields = tuple(
        MappedField(name, column, embed.mask.get(column.name))
        for name, column in zip(embed.names, columns, strict=True)
    )
    nested = tuple(_map(section, way, inner, table, tables) for inner in embed.embeds)
    return EmbedMapping(way, table, tuple(zip(own, outer, strict=True)), fields, order, embed.many, nested)


def _kind(type_: ColumnType) -> object:
    return _KINDS.get(type_.base_oid, type_.base_oid)


def _order(where: str, table: Table) -> tuple[Column, ...]:
    """The primary key, or else the first of the unique ones that every row has."""
    by_name = {column.name: column for column in table.columns}
    others = sorted(sorted(key) for key in table.unique_keys if all(by_name[name].not_null for name in key))
    names = table.primary_key or tuple(others[0] if others else ())
    if not names:
        raise KeyUnfit(
            f"{where}: {table.name} has no primary key, so its rows have no order",
            remedy=f"Give the table one: `ALTER TABLE {table.name} ADD PRIMARY KEY (...)`.",
        )
    return tuple(by_name[name] for name in names)


def _expect_identity(table: Table, own: Sequence[Column]) -> None:
    """Raise IdentityMissing with what gives the table an identity that holds these columns."""
    try:
        check_identity(table)
    except IdentityMissing as error:
        lacking = [table.name] if table.kind != "p" else table.leaves_without_identity
        raise IdentityMissing(
            str(error), remedy="\n".join(identity_remedy(table, leaf, own) for leaf in lacking)
        ) from None


def _expect_relation_told(where: str, table: Table, own: Sequence[Column]) -> None:
    """Raise RelationUntold where a delete in the log, or an update that moves a row, would not tell these columns."""
    needed = {column.name for column in own}
    unfit = [table.name] if table.kind != "p" and not needed <= table.identity_columns else []
    unfit += [leaf for leaf, columns in table.leaf_identities.items() if not needed <= columns]
    if unfit:
        names, columns = ", ".join(map(str, unfit)), ", ".join(column.name for column in own)
        raise RelationUntold(
            f"{where}: the replica identity of {names} does not hold ({columns}), so the log does not tell from which"
            " rows a deleted or moved one is taken away",
            remedy="\n".join(identity_remedy(table, leaf, own) for leaf in unfit),
        )


def identity_remedy(table: Table, name: TableName, own: Sequence[Column]) -> str:
    """SQL that gives a table, or a partition `name` of it, an identity with these columns, and what it has now.

    An index over them leads to the rows of a parent besides, which reading needs anyway; a FULL identity makes more of
    the log.
    """
    by_name = {column.name: column for column in table.columns}
    kept = table.leaf_identities.get(name, table.identity_columns)
    rest = [column for column in table.primary_key if column in kept] + sorted(kept - {*table.primary_key})
    if not kept and {column.name for column in own} <= {*table.primary_key}:
        return f"ALTER TABLE {name} REPLICA IDENTITY DEFAULT;"
    names = list(dict.fromkeys([*(column.name for column in own), *rest, *table.primary_key]))
    if not table.primary_key or not all(by_name[each].not_null for each in names):
        return f"ALTER TABLE {name} REPLICA IDENTITY FULL;"
    index = quote_identifier(_cut(f"{name.name}_{'_'.join(names)}_identity"))
    listed = ", ".join(map(quote_identifier, names))
    return (
        f"CREATE UNIQUE INDEX CONCURRENTLY {index} ON {name} ({listed});\n"
        f"ALTER TABLE {name} REPLICA IDENTITY USING INDEX {index};"
    )


def _cut(name: str) -> str:
    return name.encode()[:IDENTIFIER_MAX_BYTES].decode(errors="ignore")
