"""Holes stop the reader, and heal when a person asks for a snapshot of everything: a new epoch begins."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import psycopg
import pytest

from tests.processes import Pipeline, closing, wait_until

CONFIGURATION = """
[events.row]
table = "rows"
columns = ["id", "name"]
[sinks.copy]
type = "postgres"
dsn = "${TARGET_DSN}"
[sinks.copy.tables]
row = "replica.rows"
"""


@pytest.fixture
def shop(source_dsn: str, target_dsn: str, redis_url: str, pipeline_name: str, tmp_path: Path) -> Iterator[Pipeline]:
    """A replica that is up to date, a sink that runs, and a reader that has ended."""
    with psycopg.connect(source_dsn) as connection:
        connection.execute("CREATE TABLE rows (id int PRIMARY KEY, name text)")
        connection.execute("INSERT INTO rows SELECT i, 'old' FROM generate_series(1, 50) i")
    environment = {"TARGET_DSN": target_dsn}
    with closing(Pipeline(pipeline_name, source_dsn, redis_url, tmp_path, CONFIGURATION, environment)) as made:
        made.run("cdc.cli", "run", "--once")
        made.sink("copy")
        wait_until("the replica", lambda: len(replica(made)) == 50)
        yield made


def replica(shop: Pipeline) -> dict[int, str]:
    with psycopg.connect(shop.environment["TARGET_DSN"]) as connection:
        exists = connection.execute("SELECT to_regclass('replica.rows')").fetchone()
        if exists == (None,):
            return {}
        return dict(connection.execute("SELECT id, name FROM replica.rows").fetchall())


def execute(shop: Pipeline, statement: str) -> None:
    with psycopg.connect(shop.source_dsn, autocommit=True) as connection:
        connection.execute(statement.encode())


def delete_stream(shop: Pipeline) -> None:
    shop.redis.delete(shop.keys.stream("row", 1))


def remake_publication(shop: Pipeline) -> None:
    execute(shop, f"DROP PUBLICATION cdc_{shop.name}; CREATE PUBLICATION cdc_{shop.name} FOR TABLE rows")
    execute(shop, f"ALTER PUBLICATION cdc_{shop.name} SET (publish_via_partition_root = true)")


def write_while_there_is_no_publication(shop: Pipeline) -> None:
    execute(shop, f"DROP PUBLICATION cdc_{shop.name}")
    execute(shop, "UPDATE rows SET name = 'new' WHERE id = 50")
    execute(shop, f"CREATE PUBLICATION cdc_{shop.name} FOR TABLE rows WITH (publish_via_partition_root)")


@pytest.mark.parametrize(
    "break_it",
    [
        Pipeline.drop_slot,
        Pipeline.advance_slot,
        delete_stream,
        remake_publication,
        write_while_there_is_no_publication,
    ],
)
def test_a_hole_stops_the_reader_until_a_snapshot_of_everything_is_asked_for(
    shop: Pipeline, break_it: Callable[[Pipeline], None]
) -> None:
    execute(shop, "DELETE FROM rows WHERE id <= 10; UPDATE rows SET name = 'new' WHERE id > 40")
    break_it(shop)
    assert "`cdc snapshot --all`" in shop.run("cdc.cli", "run", expect=3)
    assert len(replica(shop)) == 50
    shop.run("cdc.cli", "snapshot", "--all")
    reader = shop.reader()
    expected = {number: "old" if number <= 40 else "new" for number in range(11, 51)}
    wait_until("the replica to be right", lambda: replica(shop) == expected)
    assert "a new epoch begins" in reader.output
    execute(shop, "UPDATE rows SET name = 'newer' WHERE id = 11")
    wait_until("changes to flow on", lambda: replica(shop) == expected | {11: "newer"})
    assert shop.redis.xlen(shop.keys.stream("row", 2)) > 40
    assert reader.terminate() == 0
    shop.run("cdc.cli", "run", "--once")


def test_a_snapshot_of_one_event_or_for_one_sink_is_no_consent(shop: Pipeline) -> None:
    shop.drop_slot()
    shop.run("cdc.cli", "snapshot", "--all", "--sink", "copy")
    shop.run("cdc.cli", "run", expect=3)


def test_redis_emptied_under_a_running_pipeline_is_filled_again(shop: Pipeline) -> None:
    reader = shop.reader()
    wait_until("the reader", lambda: "streaming from" in reader.output)
    execute(shop, "DELETE FROM rows WHERE id <= 10; UPDATE rows SET name = 'new' WHERE id > 40")
    shop.wait_published()
    shop.redis.flushall()
    execute(shop, "DELETE FROM rows WHERE id <= 20")
    wait_until("the reader to notice", lambda: not reader.running or "was there before" in reader.output)
    if not reader.running:
        reader.start()
    expected = {number: "old" if number <= 40 else "new" for number in range(21, 51)}
    wait_until("the replica to be right", lambda: replica(shop) == expected)
