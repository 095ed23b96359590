"""`where` of an event lets those rows through that Postgres would, in the snapshot and in the stream."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, cast

import psycopg
from hypothesis import given
from hypothesis import strategies as st

from tests.processes import Pipeline, closing
from tests.types.profile import examples
from tests.types.test_conditions import (
    COLUMNS,
    ROWS,
    TYPES,
    in_postgres_words,
    joined,
    predicates,
    sample,
)
from transforms.names import quote_identifier

CONDITIONS = 30
"""Each is that of an event."""


def configuration(conditions: list[str]) -> str:
    return "".join(
        f'[events.e{at}]\ntable = "samples"\ncolumns = ["id"]\nwhere = {json.dumps(condition)}\n'
        for at, condition in enumerate(conditions)
    )


def write(source: psycopg.Connection, shift: int, rows: int) -> None:
    """Have so many rows, each with the values of one that is `shift` further."""
    names = ", ".join(map(quote_identifier, ("id", *COLUMNS)))
    for row in range(rows):
        values = ", ".join(
            [str(row), *(sample(type_, of, row + shift + at) for at, (type_, of) in enumerate(COLUMNS.values()))]
        )
        found = source.execute(f"UPDATE samples SET ({names}) = ROW ({values}) WHERE id = {row}".encode())
        if not found.rowcount:
            source.execute(f"INSERT INTO samples ({names}) VALUES ({values})".encode())


def in_streams(shop: Pipeline, count: int) -> list[set[int]]:
    """Which rows consumers of each event have."""
    held: list[set[int]] = []
    for at in range(count):
        held.append(set())
        entries = cast(list[Any], shop.redis.xrange(shop.keys.stream(f"e{at}", 1)))
        for _, fields in entries:
            if b"key" in fields:
                change = held[at].add if fields[b"op"] == b"upsert" else held[at].discard
                change(json.loads(fields[b"key"])["id"])
    return held


@given(conditions=st.lists(st.recursive(predicates(), joined, max_leaves=6), min_size=CONDITIONS, max_size=CONDITIONS))
@examples(2)
def test_consumers_have_the_rows_that_postgres_chooses(
    source_dsn: str, redis_url: str, pipeline_name: str, tmp_path: Path, conditions: list[str]
) -> None:
    with psycopg.connect(source_dsn, autocommit=True) as source:
        source.execute(f"DROP SCHEMA public CASCADE; CREATE SCHEMA public; {TYPES}".encode())
        shape = ", ".join(f"{quote_identifier(name)} {type_}" for name, (type_, _) in COLUMNS.items())
        source.execute(f"CREATE TABLE samples (id int PRIMARY KEY, {shape})".encode())
        write(source, 0, ROWS // 2)
        shop = Pipeline(pipeline_name, source_dsn, redis_url, tmp_path, configuration(conditions))
        with closing(shop):
            for shift in (0, 7):
                write(source, shift, ROWS)
                shop.run("cdc.cli", "run", "--once")
                held = in_streams(shop, len(conditions))
                for condition, rows in zip(conditions, held, strict=True):
                    query = f"SELECT id FROM samples WHERE {in_postgres_words(condition)}"
                    assert rows == {id for (id,) in source.execute(query.encode()).fetchall()}, condition
            shop.run("cdc.cli", "drop", "--yes")
