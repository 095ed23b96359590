"""SQL that reads related rows: those that belong to a row, as one value, and the rows that they belong to."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Final

from psycopg import sql

from cdc.catalog import Column, Table
from cdc.related.mapping import EmbedMapping
from cdc.source.comparing import bound, comparable, equal, read_as
from cdc.source.connection import Source, translated_errors
from transforms import copy_text

ROOT: Final = "root"
"""What the event's table is called in a statement that reads related rows, too."""
_PLAIN: Final = (25, 1043)
"""Types whose values are text: text and varchar."""


@dataclass(frozen=True, slots=True)
class Touched:
    """Values that changed rows had, or have, in the columns that relate them to the rows around them."""

    way: tuple[EmbedMapping, ...]
    """From the event's rows to the changed ones."""
    values: tuple[bytes, ...]
    """JSON objects in the names of the changed rows' columns."""


# --- values -----------------------------------------------------------------------------------------------------------


def nested_value(embed: EmbedMapping, around: str = ROOT) -> sql.Composed:
    """The value of an embed for a row of `around`; see `transforms.nested` for what it looks like.

    The texts come from the types' own output functions, as in the log: a cast to text is another thing for booleans,
    inet and char(n).
    """
    own = f"level_{len(embed.path)}"
    texts = sql.SQL(", ").join(_text(own, column) for column in embed.columns)
    row = sql.SQL("json_build_array({})").format(
        sql.SQL(", ").join(
            [sql.SQL("array_to_json(ARRAY[{}])").format(texts), *(nested_value(inner, own) for inner in embed.nested)]
        )
    )
    order = sql.SQL(", ").join(comparable(column, own) for column in embed.order)
    origin = sql.SQL("FROM {} WHERE {}").format(_table(embed.table, own), _related(embed, own, around))
    if embed.many:
        return sql.SQL("(SELECT coalesce(json_agg({} ORDER BY {}), '[]'::json) {})").format(row, order, origin)
    return sql.SQL("(SELECT {} {} ORDER BY {} LIMIT 1)").format(row, origin, order)


def _text(table: str, column: Column) -> sql.Composed:
    name = sql.Identifier(table, column.name)
    if column.type.base_oid in _PLAIN:
        return sql.SQL("{}::text").format(name)
    # IS NULL would be true of a composite value whose fields are NULL
    return sql.SQL("CASE WHEN {} IS DISTINCT FROM NULL THEN format('%s', {}) END").format(name, name)


def _related(embed: EmbedMapping, own: str, around: str) -> sql.Composed:
    return sql.SQL(" AND ").join(
        equal(mine, sql.Identifier(own, mine.name), theirs, sql.Identifier(around, theirs.name))
        for mine, theirs in embed.on
    )


def _table(table: Table, alias: str) -> sql.Composed:
    only = sql.SQL("" if table.kind == "p" else "ONLY ")
    return sql.SQL("{}{} AS {}").format(only, sql.Identifier(table.name.schema, table.name.name), sql.Identifier(alias))


# --- the rows that they belong to -------------------------------------------------------------------------------------


def parents(source: Source, table: Table, key: Sequence[Column], touched: Touched, limit: int) -> list[bytes]:
    """Keys of rows of the event's table that touched rows belong to, in COPY's text format.

    At most `limit`, in no order, one perhaps several times. Raises SourceError.
    """
    names = sql.SQL(", ").join(sql.Identifier(ROOT, column.name) for column in key)
    statement = sql.SQL("SELECT {} FROM {} JOIN {} ON {} LIMIT {}").format(
        names, _rows_around(table, touched.way), _touched(touched), _meets(touched.way), sql.Literal(limit)
    )
    return _lines(source, statement)


def parents_behind(
    source: Source,
    table: Table,
    key: Sequence[Column],
    touched: Touched,
    after: tuple[str, ...] | None,
    limit: int,
) -> list[bytes]:
    """The same in the order of the key, each once, behind the key `after`."""
    names = sql.SQL(", ").join(comparable(column, ROOT) for column in key)
    beginning: sql.Composable = sql.SQL("")
    if after is not None:
        beginning = sql.SQL("WHERE {}").format(bound(key, ">", after, ROOT))
    statement = sql.SQL("SELECT DISTINCT {} FROM {} JOIN {} ON {} {} ORDER BY {} LIMIT {}").format(
        names,
        _rows_around(table, touched.way),
        _touched(touched),
        _meets(touched.way),
        beginning,
        names,
        sql.Literal(limit),
    )
    return _lines(source, statement)


def count_parents(source: Source, table: Table, touched: Touched, limit: int | None) -> dict[bytes, int]:
    """How many rows of the event's table each of the values leads to, counted to `limit`. Raises SourceError."""
    statement = sql.SQL(
        "SELECT place, count(*) FROM {} CROSS JOIN LATERAL (SELECT FROM {} WHERE {} LIMIT {}) AS found GROUP BY place"
    ).format(_touched(touched), _rows_around(table, touched.way), _meets(touched.way), sql.Literal(limit))
    found = {}
    for line in _lines(source, statement):
        place, count = copy_text.values(line)
        found[touched.values[int(place or b"0") - 1]] = int(count or b"0")
    return found


def _rows_around(table: Table, way: Sequence[EmbedMapping]) -> sql.Composed:
    """The event's table joined with those on the way to the touched one, without that."""
    joined = _table(table, ROOT)
    for level, (embed, around) in enumerate(_steps(way), 1):
        joined = sql.SQL("{} JOIN {} ON {}").format(
            joined, _table(embed.table, f"level_{level}"), _related(embed, f"level_{level}", around)
        )
    return joined


def _steps(way: Sequence[EmbedMapping]) -> Iterator[tuple[EmbedMapping, str]]:
    around = ROOT
    for level, embed in enumerate(way[:-1], 1):
        yield embed, around
        around = f"level_{level}"


def touched_types(way: Sequence[EmbedMapping]) -> list[tuple[str, str]]:
    """The names in which values of changed rows are written, and the types that they are read as."""
    return [(own.name, read_as(own, theirs)) for own, theirs in way[-1].on]


def _touched(touched: Touched) -> sql.Composed:
    """The values as rows; Postgres reads their JSON back as it reads a row's in a replica."""
    shape = sql.SQL(", ").join(
        sql.SQL("{} {}").format(sql.Identifier(name), sql.SQL(type_)) for name, type_ in touched_types(touched.way)
    )
    names = sql.SQL(", ").join(sql.Identifier(f"value_{place}") for place in range(len(touched.way[-1].on)))
    values = sql.Literal(f"[{b','.join(touched.values).decode()}]")
    return sql.SQL("ROWS FROM (json_to_recordset({}) AS ({})) WITH ORDINALITY AS touched ({}, place)").format(
        values, shape, names
    )


def _meets(way: Sequence[EmbedMapping]) -> sql.Composed:
    around = ROOT if len(way) == 1 else f"level_{len(way) - 1}"
    return sql.SQL(" AND ").join(
        equal(mine, sql.Identifier("touched", f"value_{place}"), theirs, sql.Identifier(around, theirs.name))
        for place, (mine, theirs) in enumerate(way[-1].on)
    )


def _lines(source: Source, statement: sql.Composed) -> list[bytes]:
    copied = sql.SQL("COPY ({}) TO STDOUT").format(statement)
    with translated_errors(), source.connection.cursor() as cursor, cursor.copy(copied) as copy:
        return [bytes(line) for line in copy]
