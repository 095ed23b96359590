"""A secret in columns that are not listed, or are masked, comes out nowhere: the one place where it is looked for.

It stands in old rows (published as `previous`, too) and old keys, in large values that did not change, in keys, in what
`where` looks at, in a value that cannot be encoded and in rows that a replica refuses; it is looked for in every key of
Redis, in everything that the commands print and log, as text and as JSON, and in the replica's database.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any, cast

import psycopg
import pytest

from tests import servers
from tests.processes import Pipeline, closing

SECRET = "P1anted-s3cret"
MASK_KEY = "a key that is nowhere shown 0123"
EVENTS = """
[masking]
hash_key = "${MASK_KEY}"
[events.plain]
table = "plain"
columns = ["id", "email", "name", "note", "doc", "big"]
rename = { name = "alias" }
mask = { email = "hash", name = "redact", note = "null", doc = "hash", big = "hash" }
where = "kind LIKE '%kept'"
[events.whole]
table = "whole"
previous = true
columns = ["email", "id", "big"]
key = ["email"]
mask = { email = "hash", big = "redact" }
[events.whole_v2]
table = "whole"
type = "whole"
version = 2
previous = true
columns = ["id", "email", "big"]
mask = { email = "hash", big = "hash" }
where = "kind LIKE '%kept'"
[sinks.copy]
type = "postgres"
dsn = "${TARGET_DSN}"
[sinks.copy.tables]
plain = "replica.plain"
"whole.v1" = "replica.whole"
"whole.v2" = "replica.whole_v2"
"""
TABLE = f"""
CREATE TABLE {{0}} (id int PRIMARY KEY, email text NOT NULL UNIQUE, name text, note text, doc jsonb, big text,
    kind text DEFAULT '{SECRET} kept', secret text DEFAULT '{SECRET}', large text);
ALTER TABLE {{0}} ALTER big SET STORAGE EXTERNAL, ALTER large SET STORAGE EXTERNAL;
"""


def insert(table: str, first: int, last: int) -> str:
    values = (
        f"i, '{SECRET}' || i, '{SECRET}', '{SECRET}', jsonb_build_object('{SECRET}', i), repeat('{SECRET}', 300),"
        f" '{SECRET} ' || (ARRAY['kept', 'lost'])[1 + i % 2], '{SECRET}', repeat('{SECRET}', 300)"
    )
    return f"INSERT INTO {table} SELECT {values} FROM generate_series({first}, {last}) AS i"


@pytest.fixture
def shop(source_dsn: str, target_dsn: str, redis_url: str, pipeline_name: str, tmp_path: Path) -> Iterator[Pipeline]:
    environment = {"TARGET_DSN": target_dsn, "MASK_KEY": MASK_KEY}
    with closing(Pipeline(pipeline_name, source_dsn, redis_url, tmp_path, EVENTS, environment)) as made:
        for table in ("plain", "whole"):
            execute(made, TABLE.format(table), insert(table, 1, 40))
        execute(made, "ALTER TABLE whole REPLICA IDENTITY FULL")
        yield made


def execute(shop: Pipeline, *statements: str) -> None:
    with psycopg.connect(shop.source_dsn) as connection:
        for statement in statements:
            connection.execute(statement.encode())


def in_redis(shop: Pipeline) -> str:
    """All that is stored, by kind: Redis compresses what DUMP tells."""
    client, found = shop.redis, list[Any]()
    for key in client.scan_iter(count=1000):
        kind = cast(bytes, client.type(key))
        read = {b"stream": client.xrange, b"hash": client.hgetall, b"string": client.get}[kind]
        found += (key, cast(Any, read)(key))
    return repr(found)


def in_target(shop: Pipeline) -> str:
    with psycopg.connect(shop.environment["TARGET_DSN"]) as connection:
        tables = connection.execute(
            "SELECT format('%I.%I', schemaname, tablename) FROM pg_tables WHERE schemaname IN ('cdc', 'replica')"
        ).fetchall()
        return repr([connection.execute(f"SELECT * FROM {table}".encode()).fetchall() for (table,) in tables])


def outputs(shop: Pipeline) -> dict[str, str]:
    return {command.log.name: command.output for command in shop.commands}


def expect_nowhere(shop: Pipeline, *more: str) -> None:
    for name, text in {**outputs(shop), "Redis": in_redis(shop), "target": in_target(shop), "told": repr(more)}.items():
        for secret in (SECRET, MASK_KEY):
            assert text, name
            at = text.find(secret)
            assert at < 0, f"{name}: {text[max(0, at - 200) : at + 200]}"


CHANGES = [
    insert("TABLE", 41, 60),
    f"UPDATE TABLE SET name = '{SECRET}' || id",
    "UPDATE TABLE SET id = id + 1000 WHERE id % 3 = 0",
    f"UPDATE TABLE SET email = email || ' {SECRET}' WHERE id % 5 = 0",
    f"UPDATE TABLE SET kind = '{SECRET} ' || CASE WHEN kind LIKE '%kept' THEN 'lost' ELSE 'kept' END WHERE id % 4 = 0",
    "DELETE FROM TABLE WHERE id % 7 = 0",
]


def change(shop: Pipeline) -> None:
    for statement in CHANGES:
        for table in ("plain", "whole"):
            execute(shop, statement.replace("TABLE", table))


def test_a_secret_comes_out_nowhere(shop: Pipeline) -> None:
    target, debug = shop.environment["TARGET_DSN"], ("--log-level", "debug")
    reader = shop.reader("--log-format", "json", *debug)
    shop.sink("copy", *debug)
    shop.wait_published()
    shop.wait_applied(target, "copy")
    with psycopg.connect(target) as connection:  # some rows are parked from now on
        connection.execute("ALTER TABLE replica.plain ADD CONSTRAINT none CHECK (id < 50) NOT VALID")
    change(shop)
    assert reader.terminate() == 0
    execute(shop, "DELETE FROM plain WHERE id > 40", "DELETE FROM whole WHERE id > 40")
    shop.reader("--log-format", "text", *debug)
    change(shop)
    shop.run("cdc.cli", "snapshot", "--all", "--wait")
    shop.wait_published()
    shop.wait_applied(target, "copy")
    dead = shop.run("sinks.cli", "dead", "copy", "list")
    told = [dead, shop.run("sinks.cli", "dead", "copy", "show", dead.split()[0]), shop.run("cdc.cli", "check")]
    told += [shop.run("cdc.cli", "status", "--json"), shop.run("cdc.cli", "status")]
    expect_nowhere(shop, *told)
    old = [fields for _, fields in cast(Any, shop.redis.xrange(shop.keys.stream("whole", 1))) if b"previous" in fields]
    assert {fields[b"type"] for fields in old} == {b"whole.v1", b"whole.v2"}
    with psycopg.connect(target) as connection:
        [(hashes, others)] = connection.execute(
            "SELECT count(*) FILTER (WHERE email LIKE 'k1:%'), count(*) FILTER (WHERE email NOT LIKE 'k1:%')"
            " FROM replica.whole"
        ).fetchall()
    assert (hashes > 20, others) == (True, 0)
    refused = shop.run("cdc.cli", "snapshot", "whole", "--where", "email = 'x'", "--wait", expect=2)
    assert "has no such column" in refused


@pytest.fixture
def ascii_dsn(postgres_server: servers.Postgres) -> Iterator[str]:
    """A database whose texts may be of any bytes."""
    with psycopg.connect(postgres_server.dsn(), autocommit=True) as connection:
        connection.execute("CREATE DATABASE ascii ENCODING SQL_ASCII LC_COLLATE 'C' LC_CTYPE 'C' TEMPLATE template0")
        yield postgres_server.dsn("ascii")
        slots = "SELECT pg_drop_replication_slot(slot_name) FROM pg_replication_slots WHERE database = 'ascii'"
        connection.execute(slots.encode())
        connection.execute("DROP DATABASE ascii WITH (FORCE)")


def test_a_value_that_is_not_utf_8_is_not_told(
    ascii_dsn: str, redis_url: str, pipeline_name: str, tmp_path: Path
) -> None:
    events = '[events.row]\ntable = "rows"\ncolumns = ["id", "body"]\nwhere = "body IS NOT NULL"\n'
    with closing(Pipeline(pipeline_name, ascii_dsn, redis_url, tmp_path, events)) as shop:
        execute(shop, "CREATE TABLE rows (id int PRIMARY KEY, body text)")
        shop.run("cdc.cli", "run", "--once")
        execute(shop, rf"INSERT INTO rows VALUES (1, E'{SECRET} \xff')")
        told = shop.run("cdc.cli", "run", "--once", "--log-level", "debug", expect=3)
        assert "invalid byte sequence" in told  # it is the server's
        for text in (told, in_redis(shop), shop.run("cdc.cli", "status", "--json")):
            assert SECRET not in text
