"""`rename`, `mask`, `where` and `key` as a user meets them: real servers, a reader and a sink at work."""

from __future__ import annotations

import hmac
import json
import random
from collections.abc import Iterator
from typing import Any

import psycopg
import pytest

from tests import servers
from tests.processes import Pipeline, closing, wait_until

KEY = "the key of these tests, 32 bytes"
COLUMNS = "id, email, name, region, active, total, notes"
CHOSEN = "active AND total >= 100.5 AND region IN ('eu', 'us')"
EVENTS = f"""
[masking]
hash_key = "${{MASK_KEY}}"
[events.chosen]
table = "plain"
columns = ["id", "email", "notes"]
rename = {{ id = "number", notes = "text" }}
mask = {{ email = "hash" }}
where = "{CHOSEN}"
[events.person]
table = "whole"
columns = ["email", "name", "notes"]
key = ["email"]
rename = {{ email = "address" }}
mask = {{ email = "hash" }}
where = "{CHOSEN}"
[events.person_v2]
table = "whole"
type = "person"
version = 2
columns = ["id", "email", "name", "notes", "total"]
mask = {{ email = "null", notes = "redact" }}
[events.judged]
table = "judged"
columns = ["id"]
where = "notes LIKE 'keep%'"
[sinks.copy]
type = "postgres"
dsn = "${{TARGET_DSN}}"
[sinks.copy.tables]
chosen = "replica.chosen"
"person.v1" = "replica.person"
"person.v2" = "replica.person_v2"
judged = "replica.judged"
"""
TABLE = """
CREATE TABLE {} (id int PRIMARY KEY, email text NOT NULL UNIQUE, name text, region text, active boolean,
    total numeric(12,2), notes text, secret text DEFAULT 'SECRET');
ALTER TABLE {} ALTER notes SET STORAGE EXTERNAL;
"""
Row = tuple[Any, ...]


@pytest.fixture(scope="module")
def shop(
    postgres_server: servers.Postgres, redis_server: servers.Redis, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Pipeline]:
    """Three tables of some rows, a reader and a sink at work."""
    with servers.database(postgres_server, "source") as source, servers.database(postgres_server, "target") as target:
        with psycopg.connect(source) as connection:
            for table in ("plain", "whole", "judged"):
                connection.execute(TABLE.format(table, table).encode())
            connection.execute("ALTER TABLE whole REPLICA IDENTITY FULL")
        made = Pipeline(
            "test_shaping",
            source,
            redis_server.url(),
            tmp_path_factory.mktemp("shaping"),
            EVENTS,
            {"TARGET_DSN": target, "MASK_KEY": KEY},
        )
        with closing(made):
            servers.flush(redis_server.url())
            for table in ("plain", "whole", "judged"):
                execute(made, *(f"INSERT INTO {table} ({COLUMNS}) VALUES ({values(id)})" for id in range(30)))
            made.reader("--log-level", "debug")
            made.sink("copy")
            yield made


def execute(shop: Pipeline, *statements: str) -> None:
    with psycopg.connect(shop.source_dsn) as connection:
        for statement in statements:
            connection.execute(statement.encode())


def values(id: int, seed: int = 0) -> str:
    chance = random.Random(f"{id} {seed}")
    total = chance.choice(["100.49", "100.50", "NULL", "'NaN'", "7", "1e5"])
    notes = chance.choice(["NULL", "repeat('keep me ', 500)", "repeat('not me ', 500)", "'keep'"])
    region, active = (
        chance.choice(["'eu'", "'us'", "'ap'", "NULL"]),
        chance.choice(["true", "true", "true", "false", "NULL"]),
    )
    return f"{id}, 'box{id}@home', {chance.choice(['NULL', repr('Ada')])}, {region}, {active}, {total}, {notes}"


def hashed(text: str) -> str:
    return "k1:" + hmac.digest(KEY.encode(), text.encode(), "sha256").hex()


def expected(shop: Pipeline) -> dict[str, set[Row]]:
    """What each replica must hold, worked out from the source."""
    with psycopg.connect(shop.source_dsn) as connection:
        found = {name: connection.execute(query.encode()).fetchall() for name, query in SOURCES.items()}
    return {
        "chosen": {(id, hashed(email), notes) for id, email, notes in found["chosen"]},
        "person": {(hashed(email), name, notes) for email, name, notes in found["person"]},
        "person_v2": set(found["person_v2"]),
        "judged": set(found["judged"]),
    }


SOURCES = {
    "chosen": f"SELECT id, email, notes FROM plain WHERE {CHOSEN}",
    "person": f"SELECT email, name, notes FROM whole WHERE {CHOSEN}",
    "person_v2": "SELECT id, NULL, name, CASE WHEN notes IS NOT NULL THEN '[redacted]' END, total::text FROM whole",
    "judged": "SELECT id FROM judged WHERE notes LIKE 'keep%'",
}
REPLICAS = {
    "chosen": "SELECT number, email, text FROM replica.chosen",
    "person": "SELECT address, name, notes FROM replica.person",
    "person_v2": "SELECT id, email, name, notes, total::text FROM replica.person_v2",
    "judged": "SELECT id FROM replica.judged",
}


def replicas(shop: Pipeline) -> dict[str, set[Row]]:
    with psycopg.connect(shop.environment["TARGET_DSN"]) as connection:
        tables = connection.execute("SELECT count(*) FROM pg_tables WHERE schemaname = 'replica'").fetchone()
        if tables != (4,):
            return {}
        return {name: set(connection.execute(query.encode()).fetchall()) for name, query in REPLICAS.items()}


def wait_until_right(shop: Pipeline) -> None:
    promise = "every replica to hold what is chosen of its table, as it is to be shown"
    wait_until(promise, lambda: replicas(shop) == expected(shop), 60)


def entries(shop: Pipeline, stream: str) -> list[dict[str, str]]:
    found = shop.redis.xrange(shop.keys.stream(stream, 1))
    return [{name.decode(): value.decode() for name, value in fields.items()} for _, fields in found]  # type: ignore[union-attr]


def test_the_first_snapshot_holds_what_is_chosen(shop: Pipeline) -> None:
    wait_until_right(shop)
    assert all(0 < len(rows) <= 30 for rows in replicas(shop).values())


def test_rows_that_come_and_go_by_their_values_keys_and_deletes(shop: Pipeline) -> None:
    chance = random.Random(7)
    for round_ in range(12):
        statements = []
        for _ in range(40):
            table, id, new = chance.choice(["plain", "whole", "judged"]), chance.randrange(40), chance.randrange(1000)
            statements.append(
                chance.choice(
                    [
                        f"INSERT INTO {table} ({COLUMNS}) VALUES ({values(id, new)}) ON CONFLICT DO NOTHING",
                        f"UPDATE {table} SET ({COLUMNS}) = ROW ({values(id, new)}) WHERE id = {id}",
                        f"UPDATE {table} SET ({COLUMNS}) = ROW ({values(id, new)}) WHERE id = {id}",
                        f"UPDATE {table} SET active = NOT active WHERE id = {id}",
                        f"UPDATE {table} SET name = 'name {new}' WHERE id = {id}",
                        f"UPDATE {table} SET total = 100.49 + ({new} % 2) * 0.01, active = true, region = 'eu'"
                        f" WHERE id = {id}",
                        f"UPDATE {table} SET id = 1000 + id, email = 'moved' || id || '@home' WHERE id = {id}"
                        f" AND NOT EXISTS (SELECT FROM {table} WHERE id = {1000 + id})",
                        f"DELETE FROM {table} WHERE id IN ({id}, {1000 + id})",
                    ]
                )
            )
        execute(shop, *statements)
        if round_ % 4 == 3:
            wait_until_right(shop)
    reader = next(command for command in shop.commands if command.log.name == "reader.log")
    assert reader.running
    assert "@home" not in json.dumps([entries(shop, stream) for stream in ("chosen", "person", "judged")])
