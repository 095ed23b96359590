"""A chunk: rows of a table read together with the snapshot that they are seen by."""

from __future__ import annotations

import select
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Generic, TypeVar

import psycopg
from psycopg import pq, sql

from cdc.catalog import Column
from cdc.related.mapping import EmbedMapping
from cdc.snapshot.visibility import Snapshot
from cdc.source.comparing import bound, comparable
from cdc.source.connection import Source, translated_errors
from cdc.source.nesting import ROOT, nested_value
from cdc.source.transactions import current_snapshot
from transforms import copy_text
from transforms.names import IDENTIFIER_MAX_BYTES, TableName
from transforms.row import source_key

Row = TypeVar("Row")


@dataclass(frozen=True, slots=True)
class ChunkQuery:
    """Which rows to read: a range in the order of the key, or just those with one of `keys`."""

    table: TableName
    columns: tuple[Column, ...]
    key: tuple[Column, ...]
    key_names: tuple[str, ...]
    """Under which they stand in `keys`."""
    after: tuple[str, ...] | None = None
    """Behind which key the range begins: values as Postgres' text, in the order of `key`."""
    until: tuple[str, ...] | None = None
    """The last key of the range."""
    limit: int | None = None
    keys: frozenset[bytes] | None = None
    """JSON objects, as entries carry them; of masked ones, their sources are looked for."""
    only: bool = False
    """Without the rows of tables that inherit from it, whose changes are not the table's; not for partitioned ones."""
    condition: str | None = None
    """SQL that chooses among the rows of a range, in the names of the columns. `limit` counts those that it leaves out
    too, so that a chunk takes as long as any other however few rows are chosen."""
    embeds: tuple[EmbedMapping, ...] = ()
    """Related rows, which come behind the columns."""


@dataclass(frozen=True, slots=True)
class ChunkRows(Generic[Row]):
    """What a chunk's query saw."""

    snapshot: Snapshot
    rows: list[Row]
    last_key: tuple[str, ...] | None
    """How far the range was read: the key of the last row, or that of a later one that was not chosen."""
    scanned: int
    """How many rows were looked at, those that were not chosen among them where that is known."""
    size_bytes: int
    """Of the rows in COPY's text format."""
    exhausted: bool
    """Whether the range holds nothing behind the last row."""


class _Enough(Exception):
    """A chunk has its bytes."""


def read_chunk(
    source: Source,
    asked: ChunkQuery | Callable[[], ChunkQuery],
    budget_bytes: int,
    encode: Callable[[list[bytes]], list[Row]],
) -> ChunkRows[Row]:
    """Read rows in one REPEATABLE READ transaction; stops behind `budget_bytes`, but not before the first row.

    Who asks by a function says in that transaction what to read, and may look first. `encode` takes rows of the query's
    columns in COPY's text format, each with its line's end. Raises SourceError.
    """
    rows: list[Row] = []
    last, size, cut = b"", 0, False
    with translated_errors():
        source.connection.execute("BEGIN TRANSACTION ISOLATION LEVEL REPEATABLE READ READ ONLY")
        try:
            snapshot = current_snapshot(source)
            query = asked() if callable(asked) else asked
            statement = sql.SQL("COPY ({}) TO STDOUT").format(_rows(query))
            reach = _reach(source, query)
            with suppress(_Enough), source.connection.cursor() as cursor, cursor.copy(statement):
                for lines in _arriving(source.connection.pgconn):
                    size += sum(map(len, lines))
                    cut = size >= budget_bytes
                    while cut and size - len(lines[-1]) >= budget_bytes:
                        size -= len(lines.pop())
                    rows += encode(lines)
                    last = lines[-1]
                    if cut:
                        raise _Enough  # psycopg cancels a COPY that is left by an exception
        finally:
            source.connection.execute("ROLLBACK")
    last_key = _key_of(last, query) if rows else None
    if reach is not None and not cut:
        assert query.limit is not None
        return ChunkRows(snapshot, rows, reach, query.limit, size, exhausted=False)
    exhausted = not cut and (query.limit is None or query.condition is not None or len(rows) < query.limit)
    return ChunkRows(snapshot, rows, last_key, len(rows), size, exhausted)


def _arriving(pgconn: pq.abc.PGconn) -> Iterator[list[bytes]]:
    """The lines of the COPY that this connection runs, in the lots in which they arrive.

    psycopg's own iteration takes them one by one, which costs twice as much.
    """
    lines: list[bytes] = []
    while True:
        size, line = pgconn.get_copy_data(1)
        if size > 0:
            lines.append(bytes(line))
            continue
        if size < 0:  # who takes the last lot may leave: the connection must have nothing more to read
            _end_copy(pgconn)
        if lines:
            yield lines
            lines = []
        if size < 0:
            return
        select.select([pgconn.socket], [], [])
        pgconn.consume_input()


def _end_copy(pgconn: pq.abc.PGconn) -> None:
    while (result := pgconn.get_result()) is not None:
        if result.status != pq.ExecStatus.COMMAND_OK:
            raise psycopg.errors.error_from_result(result)


def check_condition(source: Source, query: ChunkQuery) -> None:
    """Have Postgres plan the query. Raises SourceRefused for a condition that it does not take."""
    with translated_errors():
        source.connection.execute(sql.SQL("EXPLAIN {}").format(_rows(query)))


def _key_of(line: bytes, query: ChunkQuery) -> tuple[str, ...]:
    values = copy_text.values(line)
    return tuple((values[query.columns.index(column)] or b"").decode() for column in query.key)


def _reach(source: Source, query: ChunkQuery) -> tuple[str, ...] | None:
    """The key of the last of `limit` rows, chosen or not; None: there are fewer, or every row is chosen."""
    if query.condition is None or query.limit is None:
        return None
    keys = sql.SQL("COPY (SELECT {} FROM {} {} ORDER BY {} OFFSET {} LIMIT 1) TO STDOUT").format(
        _names(query.key), _table(query), _bounds(query), _order(query), sql.Literal(query.limit - 1)
    )
    with source.connection.cursor() as cursor, cursor.copy(keys) as copy:
        lines = [bytes(line) for line in copy]
    return tuple((value or b"").decode() for value in copy_text.values(lines[0])) if lines else None


def _rows(query: ChunkQuery) -> sql.Composed:
    """The SELECT of a chunk."""
    columns = sql.SQL(", ").join([_names(query.columns), *map(_embedded, query.embeds)])
    table = _table(query)
    if query.keys is not None:  # Postgres reads the key's JSON back as it reads it in a replica
        keys = sql.Literal(f"[{b','.join(sorted(map(source_key, query.keys))).decode()}]")
        shape = sql.SQL(", ").join(
            sql.SQL("{} {}").format(sql.Identifier(name), sql.SQL(column.type.base_type))
            for name, column in zip(query.key_names, query.key, strict=True)
        )
        names, order = sql.SQL(", ").join(map(sql.Identifier, query.key_names)), _order(query)
        return sql.SQL(
            "SELECT {} FROM {} WHERE ({}) IN (SELECT {} FROM json_to_recordset({}) AS k ({})) ORDER BY {}"
        ).format(columns, table, order, names, keys, shape, order)
    limit = sql.SQL("LIMIT {}").format(sql.Literal(query.limit)) if query.limit is not None else sql.SQL("")
    order = _order(query)
    rows = sql.SQL("SELECT {} FROM {} {} ORDER BY {} {}").format(columns, table, _bounds(query), order, limit)
    if query.condition is None:
        return rows
    # Chosen from the rows of the range, which are found by the key's index as ever: LIMIT is a fence for the planner.
    return sql.SQL("SELECT {} FROM ({}) AS chunk WHERE {} ORDER BY {}").format(
        sql.SQL(", ").join([_names(query.columns), *map(_alias, query.embeds)]), rows, sql.SQL(query.condition), order
    )


def _names(columns: Sequence[Column]) -> sql.Composed:
    return sql.SQL(", ").join(sql.Identifier(column.name) for column in columns)


def _table(query: ChunkQuery) -> sql.Composable:
    name = sql.Identifier(query.table.schema, query.table.name)
    only = sql.SQL("ONLY {}").format(name) if query.only else name
    return sql.SQL("{} AS {}").format(only, sql.Identifier(ROOT)) if query.embeds else only


def _embedded(embed: EmbedMapping) -> sql.Composed:
    return sql.SQL("{} AS {}").format(nested_value(embed), _alias(embed))


def _alias(embed: EmbedMapping) -> sql.Identifier:
    """Other than any column's name that is likely: a column may be published under another one, and have this."""
    return sql.Identifier(f"embed {embed.name}"[:IDENTIFIER_MAX_BYTES])


def _order(query: ChunkQuery) -> sql.Composed:
    return sql.SQL(", ").join(map(comparable, query.key))


def _bounds(query: ChunkQuery) -> sql.Composable:
    bounds = [
        bound(query.key, operator, values)
        for operator, values in ((">", query.after), ("<=", query.until))
        if values is not None
    ]
    return sql.SQL("WHERE {}").format(sql.SQL(" AND ").join(bounds)) if bounds else sql.SQL("")
