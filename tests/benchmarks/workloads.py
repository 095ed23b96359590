"""What is written to the source: tables, rows that are there before, and the load that is measured."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import psycopg

COLUMNS = (
    ("id", "bigint PRIMARY KEY"),
    ("customer_id", "integer"),
    ("amount", "numeric(12, 2)"),
    ("status", "text"),
    ("note", "text"),
    ("created_at", "timestamptz"),
    ("paid", "boolean"),
    ("ref", "uuid"),
    ("doc", "jsonb"),
    ("score", "double precision"),
)
"""Ten columns, about 300 bytes a row."""

_ROW = """
    i, i % 10000, round(i / 7.0, 2), (ARRAY['new', 'paid', 'sent'])[1 + i % 3], repeat(md5(i::text), 4),
    '2026-01-01'::timestamptz + i * interval '1 second', i % 2 = 0, md5(i::text)::uuid,
    jsonb_build_object('n', i, 'city', 'Springfield'), sqrt(i)
"""


@dataclass(frozen=True, slots=True)
class Workload:
    """One table and one load on it."""

    name: str
    what: str
    columns: tuple[tuple[str, str], ...]
    before: str
    """SQL that fills the table before anything is measured; may be empty."""
    load: Callable[[psycopg.Connection], None]
    """Writes what is measured, on a connection in autocommit."""
    rows: int
    """How many row changes the load makes."""

    @property
    def names(self) -> list[str]:
        """The table's columns."""
        return [name for name, _ in self.columns]

    def create(self, connection: psycopg.Connection) -> None:
        """Make the table, and the rows that are there before."""
        connection.execute(f"CREATE TABLE bench ({', '.join(map(' '.join, self.columns))})".encode())
        if self.before:
            connection.execute(self.before.encode())
        connection.execute("ANALYZE bench")


ONE_ROW = (
    "INSERT INTO bench SELECT i, i % 10000, round(i / 7.0, 2), 'new', repeat(md5(i::text), 4), now(), i % 2 = 0,"
    " md5(i::text)::uuid, jsonb_build_object('n', i, 'city', 'Springfield'), sqrt(i)"
    " FROM (SELECT %(id)s::bigint) AS one (i)"
).replace("i % ", "i %% ")
"""A single row of the ten columns, with the id that is given."""


def insert(first: int | str, last: int | str) -> str:
    """A statement that inserts rows with ids from `first` to `last`."""
    return f"INSERT INTO bench SELECT {_ROW} FROM generate_series({first}, {last}) AS i"


def _bulk(rows: int) -> Workload:
    def load(connection: psycopg.Connection) -> None:
        first, last = "t * 100 + 1", "t * 100 + 100"
        _procedure(connection, f"0 .. {rows // 100 - 1}", insert(first, last))

    return Workload("bulk", "inserts in transactions of 100", COLUMNS, "", load, rows)


def _updates(name: str, what: str, rows: int, keys: int) -> Workload:
    def load(connection: psycopg.Connection) -> None:
        step = 7919 if keys > 1000 else 1  # a prime: neighbours in time are not neighbours on disk
        row = f"id = 1 + (t::bigint * {step}) % {keys}"
        _procedure(
            connection, f"1 .. {rows}", f"UPDATE bench SET amount = amount + 1, status = 'again', score = t WHERE {row}"
        )

    return Workload(name, what, COLUMNS, insert(1, keys), load, rows)


def _giant(rows: int) -> Workload:
    def load(connection: psycopg.Connection) -> None:
        connection.execute(insert(1, rows).encode())

    return Workload("giant", "one transaction", COLUMNS, "", load, rows)


_WIDE = (  # kind -> type, value
    ("integer", "i + {}"),
    ("text", "'text ' || i + {}"),
    ("timestamptz", "'2026-01-01'::timestamptz + (i + {}) * interval '1 s'"),
)


def _wide(rows: int) -> Workload:
    columns = (("id", "bigint PRIMARY KEY"), *((f"c{number}", _WIDE[number % 3][0]) for number in range(59)))
    values = ", ".join(_WIDE[number % 3][1].format(number) for number in range(59))

    def load(connection: psycopg.Connection) -> None:
        insert = f"INSERT INTO bench SELECT i, {values} FROM generate_series(t * 100 + 1, t * 100 + 100) AS i"
        _procedure(connection, f"0 .. {rows // 100 - 1}", insert)

    return Workload("wide", "rows of 60 columns", columns, "", load, rows)


def _large(rows: int) -> Workload:
    def load(connection: psycopg.Connection) -> None:
        connection.execute("ALTER TABLE bench ALTER body SET STORAGE EXTERNAL")
        series = "generate_series(t * 10 + 1, t * 10 + 10)"
        insert = f"INSERT INTO bench SELECT i, repeat(md5(i::text), 640) FROM {series} AS i"
        _procedure(connection, f"0 .. {rows // 10 - 1}", insert)

    return Workload("large", "rows of 20 kB", (("id", "bigint PRIMARY KEY"), ("body", "text")), "", load, rows)


def _nothing(connection: psycopg.Connection) -> None:
    """There is no load but what the contenders make or find."""


def _snapshot(rows: int) -> Workload:
    return Workload("snapshot", "existing rows", COLUMNS, insert(1, rows), _nothing, rows)


def _latency(rows: int) -> Workload:
    return Workload("latency", "one-row commits, 1,000 a second", COLUMNS, "", _nothing, rows)


def _procedure(connection: psycopg.Connection, rounds: str, statement: str) -> None:
    """Run a loop on the server that commits after each round: the client's round trips are not what is measured."""
    body = f"BEGIN FOR t IN {rounds} LOOP {statement}; COMMIT; END LOOP; END"
    connection.execute(f"CREATE OR REPLACE PROCEDURE load() LANGUAGE plpgsql AS $$ {body} $$".encode())
    connection.execute("SET synchronous_commit = off")
    connection.execute("CALL load()")


def workloads(scale: float) -> Iterator[Workload]:
    """All loads; `scale` 1.0 is the full size."""

    def sized(rows: int) -> int:
        return max(1000, int(rows * scale) // 1000 * 1000)

    yield _bulk(sized(500_000))
    yield _updates("single", "one-row update transactions over 1,000 hot rows", sized(100_000), 1_000)
    yield _updates("spread", "one-row update transactions over 100,000 rows", sized(100_000), sized(100_000))
    yield _giant(sized(500_000))
    yield _wide(sized(100_000))
    yield _large(sized(20_000))
    yield _snapshot(sized(1_000_000))
    yield _latency(sized(30_000))
