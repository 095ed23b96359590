"""Changes to tables, publication and servers under a running pipeline: a right replica, or a stop with a name."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import psycopg
import pytest

from cdc.demo.servers import ValkeyServer
from tests.processes import Pipeline, closing, wait_until

CONFIGURATION = """
[events.row]
table = "rows"
columns = ["id", "name", "body"]
[sinks.copy]
type = "postgres"
dsn = "${TARGET_DSN}"
[sinks.copy.tables]
row = "replica.rows"
"""


@pytest.fixture
def shop(source_dsn: str, target_dsn: str, redis_url: str, pipeline_name: str, tmp_path: Path) -> Iterator[Pipeline]:
    """A table of 300 rows with large values."""
    with psycopg.connect(source_dsn) as connection:
        connection.execute(
            "CREATE DOMAIN required AS text NOT NULL;"
            "CREATE TABLE rows (id int PRIMARY KEY, name required, body text, code int UNIQUE NOT NULL);"
            "ALTER TABLE rows ALTER body SET STORAGE EXTERNAL;"
            "INSERT INTO rows SELECT i, 'old', repeat('x', 3000), i FROM generate_series(1, 300) i"
        )
    environment = {"TARGET_DSN": target_dsn}
    with closing(Pipeline(pipeline_name, source_dsn, redis_url, tmp_path, CONFIGURATION, environment)) as made:
        yield made


@pytest.fixture
def running(shop: Pipeline) -> Pipeline:
    """Reader and sink at work, the replica complete."""
    shop.reader()
    shop.sink("copy")
    wait_until_equal(shop)
    return shop


def execute(shop: Pipeline, *statements: str) -> None:
    with psycopg.connect(shop.source_dsn, autocommit=True) as connection:
        for statement in statements:
            connection.execute(statement.encode())


def rows(dsn: str, table: str) -> list[tuple[object, ...]]:
    with psycopg.connect(dsn) as connection:
        if connection.execute("SELECT to_regclass(%s)", (table,)).fetchone() == (None,):
            return []
        return connection.execute(f"SELECT id, name::text, body FROM {table} ORDER BY id".encode()).fetchall()


def wait_until_equal(shop: Pipeline) -> None:
    target = shop.environment["TARGET_DSN"]
    wait_until(
        "the replica to equal the source",
        lambda: rows(shop.source_dsn, "public.rows") == rows(target, "replica.rows"),
    )


def command(shop: Pipeline, log: str) -> str:
    return next(each.output for each in shop.commands if each.log.name == log)


def test_a_key_change_and_an_update_of_many_large_rows_in_one_transaction(running: Pipeline) -> None:
    with psycopg.connect(running.source_dsn) as connection:
        connection.execute("UPDATE rows SET id = id + 100000")
        connection.execute("UPDATE rows SET name = 'new'")
    wait_until_equal(running)
    assert "parked" not in command(running, "sink-copy.log")


def test_a_table_that_is_swapped_for_another_is_followed(running: Pipeline) -> None:
    execute(
        running,
        "CREATE TABLE other (LIKE rows INCLUDING ALL); INSERT INTO other VALUES (7, 'other', 'b', 7);"
        "DROP TABLE rows; ALTER TABLE other RENAME TO rows",
    )
    wait_until_equal(running)
    execute(running, "INSERT INTO rows VALUES (8, 'more', 'b', 8)")
    wait_until_equal(running)


def test_a_table_that_was_not_published_for_a_while_is_read_again(running: Pipeline) -> None:
    execute(
        running,
        f"ALTER PUBLICATION cdc_{running.name} DROP TABLE rows",
        "UPDATE rows SET name = 'missed'; DELETE FROM rows WHERE id > 290",
    )
    wait_until_equal(running)


def test_a_changed_type_stops_its_event_and_a_snapshot_in_hand_waits_until_it_is_changed_back(
    running: Pipeline,
) -> None:
    running.run("cdc.cli", "snapshot", "row")
    execute(running, "ALTER TABLE rows ALTER name TYPE varchar(40) USING name || '!'")
    wait_until("the event to stop", lambda: "event row.v1 stops" in command(running, "reader.log"))
    execute(running, "ALTER TABLE rows ALTER name TYPE required")
    wait_until_equal(running)


def test_an_identity_that_does_not_tell_the_key_stops_the_reader(running: Pipeline) -> None:
    execute(running, "ALTER TABLE rows REPLICA IDENTITY USING INDEX rows_code_key", "DELETE FROM rows WHERE id = 3")
    reader = next(each for each in running.commands if each.log.name == "reader.log")
    assert reader.wait() == 3
    assert "the replica identity of public.rows does not hold id" in reader.output


def test_a_request_that_cannot_be_read_is_dropped(running: Pipeline) -> None:
    for events in (b"row", b"[1]", b'{"a": 1}'):
        running.redis.xadd(running.keys.requests, {"events": events})
    wait_until("the requests to be taken", lambda: running.redis.xlen(running.keys.requests) == 0)
    execute(running, "UPDATE rows SET name = 'new' WHERE id = 1")
    wait_until_equal(running)


@pytest.mark.timeout(180)
def test_redis_killed_again_and_again_during_a_snapshot_loses_nothing(shop: Pipeline, embedded_only: None) -> None:
    execute(shop, "INSERT INTO rows SELECT i, 'many', NULL, i FROM generate_series(1000, 30000) i")
    with ValkeyServer.start(settings={"appendonly": "yes", "appendfsync": "always"}) as transport:
        shop.environment["REDIS_URL"] = transport.url()
        reader, sink = shop.reader(), shop.sink("copy")
        for share in (5_000, 12_000, 20_000):
            wait_until(
                "some of the snapshot",
                lambda share=share: len(rows(shop.environment["TARGET_DSN"], "replica.rows")) > share,  # type: ignore[misc]
            )
            transport.kill()
            execute(shop, f"UPDATE rows SET name = 'changed {share}' WHERE id % 10 = 0")
            transport.start_again()
        wait_until_equal(shop)
        assert reader.running
        assert sink.running
