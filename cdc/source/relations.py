"""Whether the columns that relate rows can be compared, and which values of them today's tables can hold."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from typing import Final, NamedTuple

from psycopg import sql

from cdc.catalog import Column, Table, TableUnfit
from cdc.errors import SourceRefused, ValueRefused
from cdc.event_mapping import EventMapping
from cdc.source.comparing import equal
from cdc.source.connection import Source, translated_errors

_COLLATION: Final = """
    SELECT c.collname FROM pg_attribute a JOIN pg_collation c ON c.oid = a.attcollation AND c.collname <> 'default'
    WHERE a.attrelid = %s::oid AND a.attnum = %s
"""


class RelationUnfit(TableUnfit):
    """Postgres does not compare the columns that are to relate rows."""

    remedy = "Name columns in `on` that the source's own SQL joins by `=`, as a foreign key does."


class _Pair(NamedTuple):
    """Two columns that are to have the same value."""

    embed: str
    own: tuple[Table, Column]
    theirs: tuple[Table, Column]


def expect_comparable(source: Source, mapping: EventMapping) -> None:
    """Raise RelationUnfit where the columns of an `on` cannot be compared; SourceError."""
    for embed, own, theirs in _pairs(mapping):
        names = " and ".join(f"{table.name}.{column.name}" for table, column in (own, theirs))
        told = f"event {mapping.label}: in {embed}, {names} of `on` cannot be compared"
        left, right = (sql.SQL("NULL::{}").format(sql.SQL(column.type.pg_type)) for _, column in (own, theirs))
        try:
            with translated_errors():
                source.connection.execute(sql.SQL("SELECT {}").format(equal(own[1], left, theirs[1], right)))
        except SourceRefused as error:
            raise RelationUnfit(f"{told}: {error}") from None
        collations = sorted({name for one in (own, theirs) for name in _collation(source, *one)})
        if len(collations) > 1:
            raise RelationUnfit(
                f"{told}: their collations are {' and '.join(collations)}",
                remedy='Give both columns one: `ALTER TABLE ... ALTER COLUMN ... TYPE text COLLATE "..."`.',
            )


def _pairs(mapping: EventMapping) -> Iterator[_Pair]:
    for title, way in mapping.ways.items():
        around = way[-2].table if len(way) > 1 else mapping.table
        for own, theirs in way[-1].on:
            yield _Pair(title, (way[-1].table, own), (around, theirs))


def _collation(source: Source, table: Table, column: Column) -> list[str]:
    """Its name, if that is not the database's own, which gives way to any other."""
    return [name for (name,) in source.query(_COLLATION, [table.oid, column.number])]


def fitting(source: Source, types: Sequence[tuple[str, str]], values: Collection[bytes]) -> frozenset[bytes]:
    """Those of some JSON objects whose values the types take, which are given with the names in the objects.

    What the log tells may be older than a type: a length that was cut, a label that was renamed. No row has such a
    value now. Raises SourceError.
    """
    shape = sql.SQL(", ").join(sql.SQL("{} {}").format(sql.Identifier(name), sql.SQL(type_)) for name, type_ in types)
    return frozenset(_fitting(source, shape, sorted(values)))


def _fitting(source: Source, shape: sql.Composable, values: list[bytes]) -> list[bytes]:
    listed = sql.Literal(f"[{b','.join(values).decode()}]")
    statement = sql.SQL("SELECT count(v) FROM json_to_recordset({}) AS v ({})").format(listed, shape)
    try:
        with translated_errors():
            source.connection.execute(statement)
    except ValueRefused:
        if len(values) == 1:
            return []
        middle = len(values) // 2
        return _fitting(source, shape, values[:middle]) + _fitting(source, shape, values[middle:])
    return values
