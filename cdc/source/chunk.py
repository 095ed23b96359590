"""A chunk: rows of a table read together with the snapshot that they are seen by."""

from __future__ import annotations

from contextlib import suppress
from dataclasses import dataclass

from psycopg import sql

from cdc.catalog import Column
from cdc.chunking import Snapshot
from cdc.source.connection import Source, translated_errors
from cdc.source.transactions import current_snapshot
from transforms import copy_text
from transforms.names import TableName


@dataclass(frozen=True, slots=True)
class ChunkQuery:
    """Which rows to read: those behind `after` in the order of the key, or just those with one of `keys`."""

    table: TableName
    columns: tuple[Column, ...]
    key: tuple[Column, ...]
    after: tuple[str, ...] | None
    """Key values as Postgres' text, in the order of `key`."""
    limit: int
    keys: frozenset[bytes] | None = None
    """JSON objects, as entries carry them."""
    only: bool = False
    """Without the rows of tables that inherit from it, whose changes are not the table's; not for partitioned ones."""


@dataclass(frozen=True, slots=True)
class ChunkRows:
    """What a chunk's query saw."""

    snapshot: Snapshot
    rows: list[bytes]
    """Each in COPY's text format, with its line's end; the query's columns."""
    last_key: tuple[str, ...] | None
    size_bytes: int
    exhausted: bool
    """Whether there is nothing behind the last row."""


class _Enough(Exception):
    """A chunk has its bytes."""


def read_chunk(source: Source, query: ChunkQuery, budget_bytes: int) -> ChunkRows:
    """Read rows in one REPEATABLE READ transaction; stops behind `budget_bytes`, but not before the first row.

    Raises SourceError.
    """
    rows: list[bytes] = []
    size, cut = 0, False
    statement = _chunk_statement(query)
    with translated_errors():
        source.connection.execute("BEGIN TRANSACTION ISOLATION LEVEL REPEATABLE READ READ ONLY")
        try:
            snapshot = current_snapshot(source)
            with suppress(_Enough), source.connection.cursor() as cursor, cursor.copy(statement) as copy:
                for line in copy:
                    rows.append(bytes(line))
                    size += len(line)
                    if size >= budget_bytes and query.keys is None:
                        cut = True
                        raise _Enough  # psycopg cancels a COPY that is left by an exception, not by `break`
        finally:
            source.connection.execute("ROLLBACK")
    key_places = [query.columns.index(column) for column in query.key]
    last = copy_text.values(rows[-1]) if rows else []
    last_key = tuple((last[place] or b"").decode() for place in key_places) if rows else None
    return ChunkRows(snapshot, rows, last_key, size, not cut and (query.keys is not None or len(rows) < query.limit))


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
    where: sql.Composable = sql.SQL("")
    if query.after is not None:
        after = sql.SQL(", ").join(_literal(*pair) for pair in zip(query.key, query.after, strict=True))
        where = sql.SQL("WHERE ({}) > ({})").format(key, after)
    return sql.SQL("COPY (SELECT {} FROM {} {} ORDER BY {} LIMIT {}) TO STDOUT").format(
        columns, table, where, key, sql.Literal(query.limit)
    )


def _comparable(column: Column) -> sql.Composable:
    """A key column in its base type: a domain over an enum has no operators of its own."""
    name = sql.Identifier(column.name)
    if column.type.pg_type == column.type.base_type:
        return name
    return sql.SQL("{}::{}").format(name, sql.SQL(column.type.base_type))


def _literal(column: Column, text: str) -> sql.Composed:
    """A key value in its column's type; the type's name is the catalog's own, and already quoted."""
    return sql.SQL("{}::{}").format(sql.Literal(text), sql.SQL(column.type.base_type))
