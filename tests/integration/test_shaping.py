"""`rename`, `mask`, `where` and `key` as a user meets them: real servers, a reader and a sink at work."""

from __future__ import annotations

import hmac
import json
import random
from collections.abc import Iterator
from pathlib import Path
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
[events.box]
table = "boxes"
columns = ["email", "size", "notes"]
mask = {{ email = "hash" }}
[sinks.copy]
type = "postgres"
dsn = "${{TARGET_DSN}}"
[sinks.copy.tables]
box = "replica.boxes"
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
            connection.execute("CREATE TABLE boxes (email text PRIMARY KEY, size int, notes text)")
            connection.execute("ALTER TABLE boxes ALTER notes SET STORAGE EXTERNAL")
            connection.execute(
                "INSERT INTO boxes SELECT 'box' || i, 0, repeat('x', 3000) FROM generate_series(1, 50) i"
            )
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
        "boxes": {(hashed(email), size, notes) for email, size, notes in found["boxes"]},
    }


SOURCES = {
    "chosen": f"SELECT id, email, notes FROM plain WHERE {CHOSEN}",
    "person": f"SELECT email, name, notes FROM whole WHERE {CHOSEN}",
    "person_v2": "SELECT id, NULL, name, CASE WHEN notes IS NOT NULL THEN '[redacted]' END, total::text FROM whole",
    "judged": "SELECT id FROM judged WHERE notes LIKE 'keep%'",
    "boxes": "SELECT email, size, notes FROM boxes",
}
REPLICAS = {
    "chosen": "SELECT number, email, text FROM replica.chosen",
    "person": "SELECT address, name, notes FROM replica.person",
    "person_v2": "SELECT id, email, name, notes, total::text FROM replica.person_v2",
    "judged": "SELECT id FROM replica.judged",
    "boxes": "SELECT email, size, notes FROM replica.boxes",
}


def replicas(shop: Pipeline) -> dict[str, set[Row]]:
    with psycopg.connect(shop.environment["TARGET_DSN"]) as connection:
        tables = connection.execute("SELECT count(*) FROM pg_tables WHERE schemaname = 'replica'").fetchone()
        if tables != (5,):
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
    assert all(0 < len(rows) <= 50 for rows in replicas(shop).values())


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


def test_a_row_whose_key_is_hashed_is_found_where_it_must_be_read_again(shop: Pipeline) -> None:
    for size in range(1, 4):
        execute(shop, f"UPDATE boxes SET size = {size}")  # without the notes, which did not change
        execute(shop, f"UPDATE boxes SET email = 'moved{size}' || email WHERE right(email, 1) = '{size}'")
    execute(shop, "DELETE FROM boxes WHERE right(email, 1) = '4'")
    wait_until_right(shop)
    box = entries(shop, "box")
    assert [entry["op"] for entry in box if entry.get("origin") == "reread"]
    assert not any("partial" in entry for entry in box)
    assert "box" not in "".join(entry.get("key", "") for entry in box)


# Changes of the configuration


@pytest.fixture
def alone(source_dsn: str, target_dsn: str, redis_url: str, pipeline_name: str, tmp_path: Path) -> Iterator[Pipeline]:
    """One event, whose replica is filled; nothing runs."""
    environment = {"TARGET_DSN": target_dsn, "MASK_KEY": KEY}
    with closing(Pipeline(pipeline_name, source_dsn, redis_url, tmp_path, ALONE, environment)) as made:
        execute(made, "CREATE TABLE rows (id int PRIMARY KEY, email text, size int)")
        execute(made, "INSERT INTO rows SELECT i, 'box' || i, i FROM generate_series(1, 9) AS i")
        once(made)
        yield made


ALONE = """
[masking]
hash_key = "${MASK_KEY}"
[events.row]
table = "rows"
columns = ["id", "email"]
mask = { email = "hash" }
where = "size > 3"
[events.whole]
table = "rows"
columns = ["id"]
[sinks.copy]
type = "postgres"
dsn = "${TARGET_DSN}"
[sinks.copy.tables]
row = "replica.rows"
"""


def once(shop: Pipeline) -> str:
    told = shop.run("cdc.cli", "run", "--once")
    shop.run("sinks.cli", "run", "copy", "--once")
    return told


def replica(shop: Pipeline) -> dict[int, str]:
    with psycopg.connect(shop.environment["TARGET_DSN"]) as connection:
        return dict(connection.execute("SELECT id, email FROM replica.rows").fetchall())


def reconfigure(shop: Pipeline, old: str, new: str) -> None:
    text = shop.path.read_text()
    assert old in text
    shop.path.write_text(text.replace(old, new))


def test_another_condition_has_a_snapshot_made_of_its_event_alone(alone: Pipeline) -> None:
    assert set(replica(alone)) == set(range(4, 10))
    execute(alone, "UPDATE rows SET size = 0 WHERE id = 9")
    reconfigure(alone, "size > 3", "size BETWEEN 2 AND 5")
    told = once(alone)
    assert "row.v1: its condition is another one than before. A snapshot of it is made" in told
    assert "snapshot of whole.v1" not in told
    assert replica(alone) == {id: hashed(f"box{id}") for id in range(2, 6)}
    assert "snapshot" not in once(alone)
    reconfigure(alone, 'where = "size BETWEEN 2 AND 5"\n', "")
    assert "its condition is another one" in once(alone)
    assert set(replica(alone)) == set(range(1, 10))


def test_check_says_what_is_masked_and_chosen(alone: Pipeline) -> None:
    told = alone.run("cdc.cli", "check")
    assert "masked: email (hash)" in told
    assert "only rows where size > 3" in told
    with psycopg.connect(alone.source_dsn) as connection:
        connection.execute("DROP ROLE IF EXISTS narrow; CREATE ROLE narrow LOGIN REPLICATION PASSWORD 'x'")
        connection.execute("GRANT SELECT (id, email) ON rows TO narrow")
    alone.environment["SOURCE_DSN"] += " user=narrow password=x"
    assert "narrow may not read size" in alone.run("cdc.cli", "check", expect=1)
    alone.environment["SOURCE_DSN"] = alone.source_dsn
    with psycopg.connect(alone.source_dsn) as connection:
        connection.execute("DROP OWNED BY narrow; DROP ROLE narrow")


def test_another_key_has_all_hashes_made_anew(alone: Pipeline) -> None:
    alone.environment["MASK_KEY"] = other = "another key of these tests, 0123"
    reconfigure(alone, 'hash_key = "${MASK_KEY}"', 'hash_key = "${MASK_KEY}"\nhash_key_id = "k2"')
    told = once(alone)
    assert "row.v1: its hash key is another one than before. A snapshot of it is made" in told
    assert "snapshot of whole.v1" not in told
    assert replica(alone)[4] == "k2:" + hmac.digest(other.encode(), b"box4", "sha256").hex()
    assert other not in repr(alone.redis.hgetall(alone.keys.meta))


def test_columns_that_a_condition_needs_are_judged_where_the_table_does_not_fit(alone: Pipeline) -> None:
    reconfigure(alone, "size > 3", "size > 3 AND shape = 'round'")
    told = alone.run("cdc.cli", "run", "--once", expect=3)
    assert "events.row.where: the event has no such column" in told
    checked = alone.run("cdc.cli", "check", expect=1)
    assert "events.row.where: the event has no such column" in checked
    reconfigure(alone, " AND shape = 'round'", " AND email > 'a'")
    assert "is compared by = <> IN and LIKE, not by an order" in alone.run("cdc.cli", "run", "--once", expect=3)


def test_a_table_that_changes_under_a_condition_is_followed(alone: Pipeline) -> None:
    execute(
        alone,
        "INSERT INTO rows VALUES (10, 'box10', 10)",
        "ALTER TABLE rows ALTER size TYPE numeric(12,2) USING size + 0.5",
        "INSERT INTO rows VALUES (11, 'box11', 3), (12, 'box12', 3.01)",
    )
    assert "its condition's columns are of other types" in once(alone)
    assert set(replica(alone)) == {*range(3, 11), 12}
    assert "snapshot" not in once(alone)


def test_a_condition_follows_its_column_while_a_reader_runs(alone: Pipeline) -> None:
    reader = alone.reader()
    execute(alone, "INSERT INTO rows VALUES (10, 'box10', 10)")
    alone.wait_published()
    execute(alone, "ALTER TABLE rows ALTER size TYPE bigint USING 10 - size", "UPDATE rows SET id = 20 WHERE id = 10")
    wait_until("the condition to be judged anew", lambda: reader.output.count("are of other types") == 1)
    alone.wait_published()
    assert reader.terminate() == 0
    once(alone)
    assert set(replica(alone)) == set(range(1, 7))
