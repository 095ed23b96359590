"""Keys of any type that Postgres can index, and names that need quoting: of tables, columns and keys."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import replace
from typing import Any, cast

import psycopg
import pytest
from psycopg import sql

from cdc.source.chunk import ChunkQuery, read_chunk
from cdc.source.connection import Source
from cdc.source.tables import describe_tables
from tests import servers
from tests.types.mirror import Mirror, mirror
from tests.types.samples import OWN_SAMPLES, OWN_TYPES, SAMPLES, arrays_of
from transforms.address import Address
from transforms.column_type import RelationColumn
from transforms.encoder import compile_encoder
from transforms.names import TableName
from transforms.row import Field
from transforms.secret import Secret

COMPOSITE_KEYS: Sequence[tuple[str, ...]] = (
    ("numeric", "text", "timestamp with time zone"),
    ("double precision", "bytea", "inet"),
    ("jsonb", "int4range", '"char"', "boolean"),
    ("interval", "text[]", "bit varying", "uuid"),
    ("mood", "pair_of_ints", "money", "name"),
)
MORE_TYPES = "CREATE TYPE public.pair_of_ints AS (a int, b int[]);"
MORE_SAMPLES = {"pair_of_ints": ("(1,{})", '(,"{1,NULL}")', '(1,"[0:0]={1}")')}
ARRAY_KEYS = ("text", "numeric", "double precision", "bytea", "int4range", "timestamp with time zone", "inet")
LITERALS = (
    SAMPLES | OWN_SAMPLES | MORE_SAMPLES | {f"{name}[]": tuple(arrays_of(SAMPLES[name], ",")) for name in ARRAY_KEYS}
)

NAMES = (
    'say "hi"',
    "select",
    "Upper",
    " lead and trail ",
    "é ß 🦆",
    "%s",
    "%",
    "{0}",
    "{}",
    "a.b",
    "$1",
    "it's",
    "back\\slash",
    "\\u0041",
    "\n\t",
    "semi;colon--",
    "/*",
    "x" * 63,
    "é" * 31,
    ",",
    "(",
    "[]",
    ":",
    "\x01",
    "\x7f",
    "\u2028",
    "ﬀ",
    "null",
    "true",
    "__proto__",
    "excluded",
    "k",
    "t",
    "place",
    "s",
    "tableoid1",
)
ODD_TABLE = '"Odd ""T"" é🦆 %s {0} \'x\'"'


@pytest.fixture(scope="module")
def keys(postgres_server: servers.Postgres) -> dict[str, tuple[str, ...]]:
    """Event -> the types of its table's key."""
    indexable: list[tuple[str, ...]] = []
    with psycopg.connect(postgres_server.dsn()) as connection:
        connection.execute((OWN_TYPES + MORE_TYPES).encode())
        for name in LITERALS:
            try:
                with connection.transaction(force_rollback=True):
                    connection.execute(f"CREATE TEMP TABLE tried (k {name} PRIMARY KEY)".encode())
                    connection.execute(
                        "SELECT k FROM tried ORDER BY k"
                    )  # a composite may hold json, which has no order
                indexable.append((name,))
            except (psycopg.errors.UndefinedObject, psycopg.errors.UndefinedFunction):
                continue
        connection.rollback()
    return {f"key_{number}": types for number, types in enumerate((*indexable, *COMPOSITE_KEYS))}


@pytest.fixture(scope="module")
def pipeline(
    postgres_server: servers.Postgres,
    redis_server: servers.Redis,
    tmp_path_factory: pytest.TempPathFactory,
    keys: dict[str, tuple[str, ...]],
) -> Iterator[Mirror]:
    setup = OWN_TYPES + MORE_TYPES
    for event, types in keys.items():
        columns = ", ".join(f"k{number} {type_}" for number, type_ in enumerate(types))
        names = ", ".join(f"k{number}" for number in range(len(types)))
        setup += f"CREATE TABLE {event} ({columns}, v int, PRIMARY KEY ({names}));"
    quoted = [sql.Identifier(name).as_string() for name in NAMES]
    columns = ", ".join(f"{name} text" for name in quoted)
    setup += f"CREATE TABLE {ODD_TABLE} ({columns}, PRIMARY KEY ({', '.join(quoted[:20])}));"
    more = {event: event for event in keys} | {"odd": ODD_TABLE}
    with mirror(postgres_server, redis_server, tmp_path_factory.mktemp("keys"), [], setup, more) as made:
        yield made


def rows(connection: psycopg.Connection[Any], table: str, columns: Sequence[str]) -> list[tuple[str | None, ...]]:
    texts = sql.SQL(", ").join(sql.SQL("{}::text").format(sql.Identifier(column)) for column in columns)
    found = connection.execute(sql.SQL("SELECT {} FROM {}").format(texts, sql.SQL(cast(Any, table)))).fetchall()
    return sorted(found, key=repr)


def assert_equal(pipeline: Mirror, keys: Mapping[str, tuple[str, ...]]) -> None:
    pipeline.settle()
    assert pipeline.parked() == []
    differing = {}
    for event, types in keys.items():
        columns = [*(f"k{number}" for number in range(len(types))), "v"]
        at_source, in_replica = (
            rows(pipeline.source, event, columns),
            rows(pipeline.target, f"replica.{event}", columns),
        )
        if at_source != in_replica:
            differing[types] = (set(at_source) - set(in_replica), set(in_replica) - set(at_source))
    assert differing == {}


def key_literals(type_: str) -> list[str]:
    """Literals for a key: short enough for an index, and without JSON null, which no key may be."""
    return [text[:600] for text in LITERALS[type_] if type_ != "jsonb" or text.strip() != "null"]


def fill(pipeline: Mirror, keys: Mapping[str, tuple[str, ...]]) -> None:
    """Write a row for each key that is not equal to an earlier one."""
    for event, types in keys.items():
        pipeline.source.execute(f"TRUNCATE {event}".encode())
        accepted = [pipeline.oracle.accepts(type_, key_literals(type_)) for type_ in types]
        for place in range(max(map(len, accepted))):
            values = [sql.Literal(texts[place % len(texts)]) for texts in accepted]
            statement = sql.SQL("INSERT INTO {} VALUES ({}, {}) ON CONFLICT DO NOTHING")
            filled = statement.format(sql.Identifier(event), sql.SQL(", ").join(values), place)
            pipeline.source.execute(filled)


def test_rows_are_found_by_keys_of_any_type(pipeline: Mirror, keys: dict[str, tuple[str, ...]]) -> None:
    fill(pipeline, keys)
    assert_equal(pipeline, keys)
    for event in keys:
        pipeline.target.execute(f"CREATE TABLE public.{event} AS SELECT * FROM replica.{event}".encode())
        pipeline.source.execute(f"UPDATE {event} SET v = v + 100; DELETE FROM {event} WHERE v % 3 = 0".encode())
    assert_equal(pipeline, keys)
    for event in keys:
        pipeline.source.execute(f"ALTER TABLE {event} REPLICA IDENTITY FULL".encode())
        pipeline.source.execute(f"UPDATE {event} SET v = v + 100; DELETE FROM {event} WHERE v % 3 = 1".encode())
    assert_equal(pipeline, keys)
    for event in keys:  # a replica that was tampered with: old values, and rows that are gone at the source
        pipeline.target.execute(f"UPDATE replica.{event} SET v = -1".encode())
        stale = f"INSERT INTO replica.{event} SELECT * FROM public.{event} ON CONFLICT DO NOTHING"
        pipeline.target.execute(f"{stale}; DROP TABLE public.{event}".encode())
    pipeline.snapshot(*keys)
    assert_equal(pipeline, keys)


def test_a_key_may_change_into_an_equal_one_of_another_spelling(
    pipeline: Mirror, keys: dict[str, tuple[str, ...]]
) -> None:
    spellings = {
        "numeric": ("1.0", "1.00"),
        "double precision": ("0", "-0"),
        "interval": ("1 month", "30 days"),
        "jsonb": ("1.0", "1.00"),
        "numeric[]": ("{1.0}", "{1.000}"),
    }
    chosen = {event: types for event, types in keys.items() if types[0] in spellings and len(types) == 1}
    for identity in ("DEFAULT", "FULL"):
        for event, (type_,) in chosen.items():
            first, second = map(sql.Literal, spellings[type_])
            table = sql.Identifier(event)
            pipeline.source.execute(sql.SQL("TRUNCATE {}").format(table))
            pipeline.source.execute(f"ALTER TABLE {event} REPLICA IDENTITY {identity}".encode())
            pipeline.source.execute(sql.SQL("INSERT INTO {} VALUES ({}, 1)").format(table, first))
            pipeline.source.execute(sql.SQL("UPDATE {} SET k0 = {}").format(table, second))
        assert_equal(pipeline, chosen)


def read_by_chunks(pipeline: Mirror, keys: Mapping[str, tuple[str, ...]]) -> None:
    """Read each table in one chunk, in chunks of one row, and by the keys that its entries would have."""
    fill(pipeline, keys)
    with closing(Source(Address("source", Secret(pipeline.pipeline.source_dsn)), "test")) as source:
        tables = describe_tables(source, [TableName("public", event) for event in keys])
        for name, table in tables.items():
            key = tuple(column for column in table.columns if column.name != "v")
            relation = [RelationColumn(column.name, column.type) for column in table.columns]
            names = tuple(f"published {column.name}" for column in key)
            renamed = [Field(*pair) for pair in zip(names, (column.name for column in key), strict=True)]
            encoder = compile_encoder(relation, [], renamed)
            query = ChunkQuery(name, table.columns, key, names)
            whole = read_chunk(source, query, 1 << 30, list).rows
            read: list[bytes] = []
            after, exhausted = None, False
            while not exhausted:
                chunk = read_chunk(source, replace(query, after=after, limit=1), 1 << 30, list)
                read += chunk.rows
                after, exhausted = chunk.last_key, chunk.exhausted
            assert read == whole, keys[name.name]
            asked = frozenset(row[0] for row in encoder.lines(whole))
            assert len(asked) == len(whole)
            found = read_chunk(source, replace(query, keys=asked), 1 << 30, list).rows
            assert sorted(found) == sorted(whole), keys[name.name]


def test_chunks_go_through_keys_of_any_type_in_order_and_find_rows_by_them(
    pipeline: Mirror, keys: dict[str, tuple[str, ...]]
) -> None:
    read_by_chunks(pipeline, {event: types for event, types in keys.items() if types != ("feeling",)})


def test_chunks_go_through_keys_that_are_domains_over_enums(pipeline: Mirror, keys: dict[str, tuple[str, ...]]) -> None:
    read_by_chunks(pipeline, {event: types for event, types in keys.items() if types == ("feeling",)})


def test_names_that_need_quoting_are_the_same_in_the_replica(pipeline: Mirror) -> None:
    table = sql.SQL(cast(Any, ODD_TABLE))
    for row in (NAMES, [name[::-1] for name in NAMES]):
        values = sql.SQL(", ").join(map(sql.Literal, row))
        pipeline.source.execute(sql.SQL("INSERT INTO {} VALUES ({})").format(table, values))
    pipeline.settle()
    assert rows(pipeline.target, f"replica.{ODD_TABLE}", NAMES) == rows(pipeline.source, ODD_TABLE, NAMES)
    pipeline.source.execute(sql.SQL("ALTER TABLE {} REPLICA IDENTITY FULL").format(table))
    pipeline.source.execute(
        sql.SQL("UPDATE {} SET {} = 'changed', {} = 'key'").format(
            table, sql.Identifier(NAMES[-1]), sql.Identifier("select")
        )
    )
    pipeline.settle()
    assert rows(pipeline.target, f"replica.{ODD_TABLE}", NAMES) == rows(pipeline.source, ODD_TABLE, NAMES)
    pipeline.target.execute(sql.SQL("UPDATE replica.{} SET {} = 'wrong'").format(table, sql.Identifier("select")))
    pipeline.snapshot("odd")
    assert rows(pipeline.target, f"replica.{ODD_TABLE}", NAMES) == rows(pipeline.source, ODD_TABLE, NAMES)
