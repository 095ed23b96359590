"""Row by row: is every replica table equal to what the source holds?"""

from __future__ import annotations

from collections.abc import Generator, Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass, field
from typing import Literal

import psycopg
from psycopg import sql

from cdc.demo.shop import Copy

_EXAMPLES = 5
_SAME_TEXT = "-c timezone=UTC -c datestyle=ISO -c intervalstyle=iso_8601 -c extra_float_digits=1"

Kind = Literal["missing", "surplus", "different"]


@dataclass(slots=True)
class Verdict:
    """What became of one replica table."""

    copy: Copy
    rows: int = 0
    """At the source."""
    differences: int = 0
    examples: list[tuple[Kind, str]] = field(default_factory=list)
    """The keys of the first few rows that differ."""


def compare(copy: Copy, source_dsn: str, replica_dsn: str) -> Verdict:
    """Read both tables in the order of the key and compare every mapped column as Postgres writes it."""
    verdict = Verdict(copy)
    with (
        psycopg.connect(source_dsn, options=_SAME_TEXT) as source,
        psycopg.connect(replica_dsn, options=_SAME_TEXT) as replica,
    ):
        key = copy.key or _primary_key(source, copy.source_table)
        at_source = sql.SQL("({}) AS found").format(sql.SQL(copy.rows))
        with (  # closed in any case: a connection in the middle of a COPY would wait for its end for ever
            closing(_rows(source, at_source if copy.rows else _table(copy.source_table), key, copy.columns)) as left,
            closing(_rows(replica, _table(copy.replica_table), key, copy.columns)) as right,
        ):
            for kind, found in _merged(left, right, len(key)):
                verdict.rows += kind != "surplus"
                if kind != "equal":
                    verdict.differences += 1
                    if len(verdict.examples) < _EXAMPLES:
                        verdict.examples.append((kind, b", ".join(found).decode()))
    return verdict


def _table(name: str) -> sql.Identifier:
    return sql.Identifier(*name.split("."))


def _primary_key(connection: psycopg.Connection[tuple[str]], table: str) -> list[str]:
    rows = connection.execute(
        "SELECT a.attname FROM pg_index i, unnest(i.indkey) WITH ORDINALITY AS k (number, place), pg_attribute a"
        " WHERE i.indrelid = %s::regclass AND i.indisprimary AND a.attrelid = i.indrelid AND a.attnum = k.number"
        " ORDER BY k.place",
        (table,),
    )
    return [name for (name,) in rows]


def _rows(
    connection: psycopg.Connection[tuple[str]], rows: sql.Composable, key: Sequence[str], columns: tuple[str, ...]
) -> Generator[bytes, None, None]:
    """The lines of a COPY, key columns first; in the order of the keys' bytes, which no collation changes."""
    rest = [name for name in columns if name not in key]
    statement = sql.SQL("COPY (SELECT {} FROM {} ORDER BY {}) TO STDOUT").format(
        sql.SQL(", ").join(map(sql.Identifier, (*key, *rest))),
        rows,
        sql.SQL(", ").join(sql.SQL('{}::text COLLATE "C"').format(sql.Identifier(name)) for name in key),
    )
    try:
        with connection.cursor() as cursor, cursor.copy(statement) as lines:
            for line in lines:  # the server sends each row as a message of its own
                yield bytes(line)
    except psycopg.errors.UndefinedTable:
        return  # a sink that made no table has no row either


def _merged(
    source: Iterator[bytes], replica: Iterator[bytes], width: int
) -> Iterator[tuple[Kind | Literal["equal"], list[bytes]]]:
    """Walk along both; `width` is the number of key columns."""

    def key_of(line: bytes) -> list[bytes]:
        return line.rstrip(b"\n").split(b"\t", width)[:width]

    left, right = next(source, None), next(replica, None)
    while left is not None or right is not None:
        if left == right:
            yield "equal", []
            left, right = next(source, None), next(replica, None)
        elif right is None or (left is not None and key_of(left) < key_of(right)):
            assert left is not None
            yield "missing", key_of(left)
            left = next(source, None)
        elif left is None or key_of(right) < key_of(left):
            yield "surplus", key_of(right)
            right = next(replica, None)
        else:
            yield "different", key_of(left)
            left, right = next(source, None), next(replica, None)
