"""A reader that is killed at the worst places of a snapshot: what is finished of it is never read again."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing as ended
from pathlib import Path
from typing import cast

import psycopg
import pytest

from cdc.snapshot.run import Run
from cdc.snapshot.sizing import FIRST_ROWS
from tests import checker
from tests.processes import Pipeline, closing, wait_until
from tests.snare import Snare

ROWS = 30_000
CONFIGURATION = """
[events.page]
table = "pages"
columns = ["id", "views"]
[sinks.copy]
type = "postgres"
dsn = "${TARGET_DSN}"
[sinks.copy.tables]
page = "replica.pages"
"""
COLUMNS = {"pages": ("page.v1", ["id", "views"], ["id"])}


@pytest.fixture
def shop(source_dsn: str, target_dsn: str, redis_url: str, pipeline_name: str, tmp_path: Path) -> Iterator[Pipeline]:
    """A table that one thread snapshots, chunk after chunk; nothing is confirmed to the slot."""
    with psycopg.connect(source_dsn, autocommit=True) as connection:
        connection.execute("CREATE TABLE pages (id int PRIMARY KEY, views bigint DEFAULT 0)")
        connection.execute(f"INSERT INTO pages SELECT n, 0 FROM generate_series(1, {ROWS}) AS n")
        connection.execute("ANALYZE pages")
    with closing(
        Pipeline(
            pipeline_name,
            source_dsn,
            redis_url,
            tmp_path,
            CONFIGURATION,
            {"TARGET_DSN": target_dsn},
            source_options="snapshot_workers = 1",
            transport_options="confirm_delay_seconds = 3600",
        )
    ) as made:
        yield made


def run_of(shop: Pipeline) -> Run | None:
    stored = cast(dict[bytes, bytes], shop.redis.hgetall(shop.keys.runs))
    return next(map(Run.parse, stored.values()), None)


def rows_done(shop: Pipeline) -> int:
    run = run_of(shop)
    return run.rows if run else 0


def published(shop: Pipeline) -> Counter[bytes]:
    """How often the snapshot has published each key."""
    entries = cast(list[tuple[bytes, dict[bytes, bytes]]], shop.redis.xrange(shop.keys.stream("page", 1)))
    return Counter(fields[b"key"] for _, fields in entries if fields.get(b"origin") == b"snapshot")


def execute(shop: Pipeline, statement: str) -> object:
    with psycopg.connect(shop.source_dsn, autocommit=True) as connection:
        cursor = connection.execute(statement.encode())
        return cursor.fetchall() if cursor.description else None


def finish(shop: Pipeline) -> None:
    """Let the snapshot come to its end, and find that the replica has what the source has."""
    sink = shop.sink("copy")
    shop.wait_published()
    shop.wait_applied(shop.environment["TARGET_DSN"], "copy")
    assert sink.running, sink.output
    checker.assert_replica_equals_source(shop.source_dsn, shop.environment["TARGET_DSN"], COLUMNS)


WAITING_CHUNKS = "FROM pg_stat_activity WHERE query LIKE 'COPY (%' AND wait_event_type = 'Lock'"


class Gate:
    """Lets the snapshot's chunks be read one by one: each waits for a lock, with its low mark delivered."""

    def __init__(self, shop: Pipeline) -> None:
        self._shop = shop
        self._holder = self._locked()

    def close(self) -> None:
        """Let all chunks through."""
        self._holder.close()

    def wait_for_chunk(self) -> None:
        """Return when a chunk waits, and all before it are published and stored."""
        wait_until("a chunk to wait", lambda: execute(self._shop, f"SELECT 1 {WAITING_CHUNKS}"))
        wait_until("those before to be stored", lambda: rows_done(self._shop) == published(self._shop).total())

    def let_one_through(self) -> None:
        """Have the chunk that waits read; the next one waits."""
        with ThreadPoolExecutor(1) as behind:
            following = behind.submit(self._locked)
            wait_until(
                "the lock to be asked for",
                lambda: execute(
                    self._shop, "SELECT 1 FROM pg_locks WHERE mode = 'AccessExclusiveLock' AND NOT granted"
                ),
            )
            self._holder.close()
            self._holder = following.result(30)

    def _locked(self) -> psycopg.Connection:
        connection = psycopg.connect(self._shop.source_dsn)
        connection.execute("LOCK TABLE pages IN ACCESS EXCLUSIVE MODE")
        return connection


def test_a_reader_killed_between_the_marks_of_a_chunk_reads_that_one_and_no_other_again(shop: Pipeline) -> None:
    shop.run("cdc.cli", "snapshot", "--pause")
    reader, done = shop.reader(), [0]
    wait_until("the table to be published", lambda: shop.published)
    with ended(Gate(shop)) as gate:
        shop.run("cdc.cli", "snapshot", "--resume")
        for _ in range(3):
            gate.wait_for_chunk()
            while rows_done(shop) == done[-1]:  # a start may have the first one read twice: the lock's holder is unseen
                gate.let_one_through()
                gate.wait_for_chunk()
            reader.kill()
            execute(shop, f"SELECT pg_terminate_backend(pid) {WAITING_CHUNKS}")
            done.append(rows_done(shop))
            reader.start()
        gate.wait_for_chunk()
    finish(shop)
    assert done == [0, FIRST_ROWS, 2 * FIRST_ROWS, 3 * FIRST_ROWS]
    assert Counter(published(shop).values()) == {1: ROWS}


def test_a_reader_killed_between_the_publishing_of_a_chunk_and_its_storing_reads_that_one_and_no_other_again(
    shop: Pipeline, redis_url: str
) -> None:
    with ended(Snare(redis_url, b'"after": ["')) as snare:
        shop.environment["REDIS_URL"] = snare.url
        reader = shop.command("cdc.cli", "run", log="reader")
        snare.on_bait = reader.kill
        reader.start()
        assert snare.sprung.wait(60)
        lost = published(shop).total()
        assert rows_done(shop) == 0
        assert FIRST_ROWS <= lost < 3 * FIRST_ROWS
        execute(shop, "UPDATE pages SET views = views + 1 WHERE id % 1000 = 7")
        reader.start()
        wait_until("the snapshot", shop.snapshots_done)
        finish(shop)
    assert Counter(published(shop).values()) == {1: ROWS - lost, 2: lost}
