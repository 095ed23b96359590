"""The source goes back: a restored disk, a base backup. It is noticed before anything is taken for a repeat.

Afterwards the streams begin a new epoch, and rows that the source has never had are in no replica.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from cdc.demo.servers import PostgresServer
from tests.faults import shops
from tests.faults.shops import execute, heal, keep_disk, restore_disk, wait_until_equal
from tests.processes import Pipeline, wait_until

GROW = "INSERT INTO unmapped SELECT repeat('x', 1000) FROM generate_series(1, 500)"
LOST = "INSERT INTO rows VALUES (100, 'never was'), (101, 'never was'); DELETE FROM rows WHERE id = 1"
AFTERWARDS = {
    "nothing": ([], "before what has been published"),
    "the mapped tables": ([GROW, "INSERT INTO rows VALUES (200, 'other')", "INSERT INTO others VALUES (9)"], "entry "),
    "another mapped table": ([GROW, "INSERT INTO others VALUES (9)"], "is not in the source's log any more"),
    "a table that is not mapped": ([GROW], "is not in the source's log any more"),
}
"""What is written after the restore, beyond what was published; and what the reader says."""


@pytest.fixture(scope="module")
def source() -> Iterator[PostgresServer]:
    with PostgresServer.start() as server:
        yield server


@pytest.fixture
def database(source: PostgresServer, pipeline_name: str) -> str:
    execute(source.dsn(), f"CREATE DATABASE {pipeline_name} STRATEGY file_copy")
    return source.dsn(pipeline_name)


@pytest.fixture
def shop(database: str, target_dsn: str, redis_url: str, pipeline_name: str, tmp_path: Path) -> Iterator[Pipeline]:
    with shops.a_shop(database, target_dsn, redis_url, pipeline_name, tmp_path) as made:
        yield made


@pytest.mark.parametrize("what", shops.some(AFTERWARDS, {"the mapped tables", "another mapped table"}))
def test_a_disk_that_was_restored_is_noticed_whatever_was_written_since(
    source: PostgresServer, shop: Pipeline, what: str
) -> None:
    afterwards, told = AFTERWARDS[what]
    reader = shop.reader()
    shop.sink("copy")
    wait_until_equal(shop)
    shop.wait_published()
    kept = keep_disk(source)
    execute(shop.source_dsn, LOST)
    wait_until_equal(shop)
    reader.terminate()
    published = shop.published
    restore_disk(source, kept)
    execute(shop.source_dsn, *afterwards)
    assert (shop.flush_position() > published) == bool(afterwards)
    output = shop.run("cdc.cli", "run", expect=3)
    assert told in output
    assert "`cdc snapshot --all`" in output
    heal(shop)
    assert (200, "other") in shops.contents(shop.source_dsn, "public")["rows"] or "mapped tables" not in what


def test_a_reader_at_work_notices_that_the_disk_under_it_was_restored(source: PostgresServer, shop: Pipeline) -> None:
    reader = shop.reader()
    shop.sink("copy")
    wait_until_equal(shop)
    kept = keep_disk(source)
    execute(shop.source_dsn, LOST)
    wait_until_equal(shop)
    restore_disk(source, kept)
    assert reader.wait() == 3
    heal(shop)


def test_a_base_backup_in_the_sources_place_has_no_slot(source: PostgresServer, shop: Pipeline) -> None:
    shop.reader()
    shop.sink("copy")
    wait_until_equal(shop)
    with PostgresServer.backup_of(source, settings={}, standby=False) as backup:
        execute(shop.source_dsn, LOST)
        wait_until_equal(shop)
        shop.commands[0].terminate()
        shop.environment["SOURCE_DSN"] = shop.source_dsn = backup.dsn(shop.name)
        execute(shop.source_dsn, GROW, "INSERT INTO rows VALUES (200, 'other')")
        assert "the slot does not exist any more" in shop.run("cdc.cli", "run", expect=3)
        heal(shop)
        wait_until("the reader", lambda: shop.commands[-1].running)
