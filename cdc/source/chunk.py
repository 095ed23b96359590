"""A chunk: rows of a table read together with the snapshot that they are seen by."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from typing import Generic, TypeVar

from psycopg import sql

from cdc.catalog import Column
from cdc.snapshot.visibility import Snapshot
from cdc.source.connection import Source, translated_errors
from cdc.source.transactions import current_snapshot
from transforms import copy_text
from transforms.names import TableName

Row = TypeVar("Row")


@dataclass(frozen=True, slots=True)
class ChunkQuery:
    """Which rows to read: a range in the order of the key, or just those with one of `keys`."""

    table: TableName
    columns: tuple[Column, ...]
    key: tuple[Column, ...]
    after: tuple[str, ...] | None = None
    """Behind which key the range begins: values as Postgres' text, in the order of `key`."""
    until: tuple[str, ...] | None = None
    """The last key of the range."""
    limit: int | None = None
    keys: frozenset[bytes] | None = None
    """JSON objects, as entries carry them."""
    only: bool = False
    """Without the rows of tables that inherit from it, whose changes are not the table's; not for partitioned ones."""


@dataclass(frozen=True, slots=True)
class ChunkRows(Generic[Row]):
    """What a chunk's query saw."""

    snapshot: Snapshot
    rows: list[Row]
    last_key: tuple[str, ...] | None
    size_bytes: int
    """Of the rows in COPY's text format."""
    exhausted: bool
    """Whether the range holds nothing behind the last row."""


class _Enough(Exception):
    """A chunk has its bytes."""


def read_chunk(source: Source, query: ChunkQuery, budget_bytes: int, encode: Callable[[bytes], Row]) -> ChunkRows[Row]:
    """Read rows in one REPEATABLE READ transaction; stops behind `budget_bytes`, but not before the first row.

    `encode` takes a row of the query's columns in COPY's text format, with its line's end. Raises SourceError.
    """
    rows: list[Row] = []
    line, size, cut = b"", 0, False
    statement = _chunk_statement(query)
    with translated_errors():
        source.connection.execute("BEGIN TRANSACTION ISOLATION LEVEL REPEATABLE READ READ ONLY")
        try:
            snapshot = current_snapshot(source)
            with suppress(_Enough), source.connection.cursor() as cursor, cursor.copy(statement) as copy:
                for received in copy:
                    line = bytes(received)
                    rows.append(encode(line))
                    size += len(line)
                    if size >= budget_bytes and query.keys is None:
                        cut = True
                        raise _Enough  # psycopg cancels a COPY that is left by an exception, not by `break`
        finally:
            source.connection.execute("ROLLBACK")
    exhausted = not cut and (query.limit is None or len(rows) < query.limit)
    return ChunkRows(snapshot, rows, _key_of(line, query) if rows else None, size, exhausted)


def _key_of(line: bytes, query: ChunkQuery) -> tuple[str, ...]:
    values = copy_text.values(line)
    return tuple((values[query.columns.index(column)] or b"").decode() for column in query.key)


def _chunk_statement(query: ChunkQuery) -> sql.Composed:
    name = sql.Identifier(query.table.schema, query.table.name)
    table = sql.SQL("ONLY {}").format(name) if query.only else name
    key = sql.SQL(", ").join(map(_comparable, query.key))
    columns = sql.SQL(", ").join(sql.Identifier(column.name) for column in query.columns)
    if query.keys is not None:  # Postgres reads the key's JSON back as it reads it in a replica
        keys = sql.Literal(f"[{b','.join(sorted(query.keys)).decode()}]")
        names = sql.SQL(", ").join(sql.Identifier(column.name) for column in query.key)
        shape = sql.SQL(", ").join(
            sql.SQL("{} {}").format(sql.Identifier(column.name), sql.SQL(column.type.base_type)) for column in query.key
        )
        return sql.SQL(
            "COPY (SELECT {} FROM {} WHERE ({}) IN (SELECT {} FROM json_to_recordset({}) AS k ({}))) TO STDOUT"
        ).format(columns, table, key, names, keys, shape)
    bounds = [
        sql.SQL("({}) {} ({})").format(key, sql.SQL(operator), _key_literal(query.key, bound))
        for operator, bound in ((">", query.after), ("<=", query.until))
        if bound is not None
    ]
    where = sql.SQL("WHERE {}").format(sql.SQL(" AND ").join(bounds)) if bounds else sql.SQL("")
    limit = sql.SQL("LIMIT {}").format(sql.Literal(query.limit)) if query.limit is not None else sql.SQL("")
    return sql.SQL("COPY (SELECT {} FROM {} {} ORDER BY {} {}) TO STDOUT").format(columns, table, where, key, limit)


def _comparable(column: Column) -> sql.Composable:
    """A key column in its base type: a domain over an enum has no operators of its own."""
    name = sql.Identifier(column.name)
    if column.type.pg_type == column.type.base_type:
        return name
    return sql.SQL("{}::{}").format(name, sql.SQL(column.type.base_type))


def _key_literal(key: tuple[Column, ...], values: tuple[str, ...]) -> sql.Composed:
    """A key in its columns' types; a type's name is the catalog's own, and already quoted."""
    return sql.SQL(", ").join(
        sql.SQL("{}::{}").format(sql.Literal(text), sql.SQL(column.type.base_type))
        for column, text in zip(key, values, strict=True)
    )
