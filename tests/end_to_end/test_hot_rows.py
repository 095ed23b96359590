"""A row that is changed all the time, without its large value: faster than it can be read again."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path

import psycopg
import pytest

from tests import checker
from tests.processes import Pipeline, closing, wait_until

CONFIGURATION = """
[events.page]
table = "pages"
columns = ["id", "views", "body"]
[sinks.copy]
type = "postgres"
dsn = "${TARGET_DSN}"
[sinks.copy.tables]
page = "replica.pages"
"""
COLUMNS = {"pages": ("page.v1", ["id", "views", "body"], ["id"])}
HOT = 1000
"""The key that the row gets."""


@pytest.fixture
def shop(source_dsn: str, target_dsn: str, redis_url: str, pipeline_name: str, tmp_path: Path) -> Iterator[Pipeline]:
    with psycopg.connect(source_dsn) as connection:
        connection.execute("CREATE TABLE pages (id int PRIMARY KEY, views bigint DEFAULT 0, body text)")
        connection.execute("ALTER TABLE pages ALTER body SET STORAGE EXTERNAL")
        connection.execute("INSERT INTO pages SELECT n, 0, repeat(md5(n::text), 100) FROM generate_series(1, 500) AS n")
    environment = {"TARGET_DSN": target_dsn}
    with closing(Pipeline(pipeline_name, source_dsn, redis_url, tmp_path, CONFIGURATION, environment)) as made:
        yield made


@contextmanager
def viewed_all_the_time(shop: Pipeline) -> Iterator[None]:
    """Count views of the hot row as fast as the source takes them."""
    stop, failures = threading.Event(), list[BaseException]()

    def view() -> None:
        try:
            with psycopg.connect(shop.source_dsn, autocommit=True) as connection:
                connection.execute("SET synchronous_commit = off")
                while not stop.is_set():
                    connection.execute("UPDATE pages SET views = views + 1 WHERE id = %s", (HOT,))
        except psycopg.Error as error:
            failures.append(error)

    threads = [threading.Thread(target=view) for _ in range(1)]
    for thread in threads:
        thread.start()
    try:
        yield
    finally:
        stop.set()
        for thread in threads:
            thread.join()
    assert failures == []


def reach(shop: Pipeline) -> None:
    """Wait until all that is committed now is published, though more is committed meanwhile."""
    position = shop.flush_position()
    wait_until(f"published to reach {position}", lambda: shop.published >= position)


def has_rereads(shop: Pipeline, since: str = "-") -> bool:
    entries = shop.redis.xrange(shop.keys.stream("page", 1), since)
    return any(fields.get(b"origin") == b"reread" for _, fields in entries)  # type: ignore[union-attr]


@pytest.mark.timeout(180)
def test_a_row_that_changes_faster_than_it_is_read_holds_neither_slot_nor_snapshot(shop: Pipeline) -> None:
    reader, sink = shop.reader(), shop.sink("copy")
    shop.wait_published()
    with psycopg.connect(shop.source_dsn) as connection:
        connection.execute("UPDATE pages SET id = %s WHERE id = 7", (HOT,))
    with viewed_all_the_time(shop):
        reach(shop)
        assert has_rereads(shop)
        assert "published page.v1: 500 rows" in shop.run("cdc.cli", "snapshot", "page", "--wait")
        for _ in range(3):
            wait_until("the row to be read again", partial(has_rereads, shop, f"({shop.last_ids()['page']}"))
            reader.kill()
            reader.start()
        reach(shop)
    shop.wait_published()
    shop.wait_applied(shop.environment["TARGET_DSN"], "copy")
    assert reader.running, reader.output
    assert sink.running, sink.output
    checker.assert_replica_equals_source(shop.source_dsn, shop.environment["TARGET_DSN"], COLUMNS)
