"""Streams under steady load: Redis' memory stays flat, and grows only for somebody who does not read.

STATECAST_SOAK_SECONDS  how long the long form runs (1800)
"""

from __future__ import annotations

import json
import os
import statistics
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psycopg
import pytest

from tests import servers
from tests.processes import Pipeline, closing, wait_until

SOAK_SECONDS = float(os.environ.get("STATECAST_SOAK_SECONDS", "1800"))
CONFIGURATION = """
[events.row]
table = "rows"
columns = ["id", "number", "text"]
[sinks.one]
type = "postgres"
dsn = "${ONE_DSN}"
[sinks.one.tables]
row = "replica.rows"
[sinks.two]
type = "postgres"
dsn = "${TWO_DSN}"
[sinks.two.tables]
row = "replica.rows"
"""


@dataclass
class Samples:
    """What was seen each second."""

    memory: list[int] = field(default_factory=list)
    entries: list[int] = field(default_factory=list)
    changes: int = 0


@contextmanager
def load(shop: Pipeline, changes_per_second: int) -> Iterator[Samples]:
    """At most so many changes, in transactions of 100 that never come in a burst, with a sample each second."""
    stop, failures, samples = threading.Event(), [], Samples()

    def write() -> None:
        try:
            with psycopg.connect(shop.source_dsn, autocommit=True) as connection:
                while not stop.wait(100 / changes_per_second):
                    at = samples.changes % 10_000
                    connection.execute("UPDATE rows SET number = number + 1 WHERE id > %s AND id <= %s", (at, at + 100))
                    samples.changes += 100
        except psycopg.Error as error:
            failures.append(error)

    def sample() -> None:
        while not stop.wait(1.0):
            info: Any = shop.redis.info("memory")
            samples.memory.append(int(info["used_memory"]))
            samples.entries.append(shop.redis.xlen(shop.keys.stream("row", 1)))

    threads = [threading.Thread(target=write), threading.Thread(target=sample)]
    for thread in threads:
        thread.start()
    try:
        yield samples
    finally:
        stop.set()
        for thread in threads:
            thread.join()
    assert failures == []


def rows(dsn: str, table: str) -> list[tuple[object, ...]]:
    with psycopg.connect(dsn) as connection:
        return connection.execute(f"SELECT id, number, text FROM {table} ORDER BY id".encode()).fetchall()


@pytest.mark.parametrize(
    ("seconds", "retain_seconds", "changes_per_second"),
    [
        pytest.param(12.0, 3, 1_000, id="short"),
        pytest.param(
            SOAK_SECONDS, 60, 2_000, id="long", marks=[pytest.mark.soak, pytest.mark.timeout(int(SOAK_SECONDS) + 900)]
        ),
    ],
)
def test_memory_stays_flat_and_who_holds_the_stream_back_is_named(
    postgres_server: servers.Postgres,
    source_dsn: str,
    target_dsn: str,
    redis_url: str,
    pipeline_name: str,
    tmp_path: Path,
    seconds: float,
    retain_seconds: int,
    changes_per_second: int,
) -> None:
    with psycopg.connect(source_dsn) as connection:
        connection.execute("CREATE TABLE rows (id int PRIMARY KEY, number int NOT NULL DEFAULT 0, text text)")
        connection.execute("INSERT INTO rows SELECT i, 0, repeat(md5(i::text), 5) FROM generate_series(1, 10000) i")
    options = f'confirm_delay_seconds = 0.3\nretain = "{retain_seconds}s"'
    with servers.database(postgres_server, "two") as two_dsn:
        environment = {"ONE_DSN": target_dsn, "TWO_DSN": two_dsn}
        shop = Pipeline(
            pipeline_name, source_dsn, redis_url, tmp_path, CONFIGURATION, environment, transport_options=options
        )
        with closing(shop):
            commands = [shop.reader(), shop.sink("one"), shop.sink("two")]
            shop.wait_published()
            for dsn, sink in ((target_dsn, "one"), (two_dsn, "two")):
                shop.wait_applied(dsn, sink)
            key = shop.keys.stream("row", 1)
            with load(shop, changes_per_second) as samples:
                time.sleep(seconds)  # the load runs for so long
                flat = len(samples.memory)
                shop.redis.xgroup_create(key, "audit", "$")
                usual = max(samples.entries[flat // 2 : flat])
                wait_until("the stream to be held back", lambda: shop.redis.xlen(key) > 1.7 * usual, seconds * 10)
                status = json.loads(shop.run("cdc.cli", "status", "--json"))
                shop.run("cdc.cli", "forget", "audit", "--yes")
                wait_until("what was held back to go", lambda: shop.redis.xlen(key) <= usual * 1.2)
            steady = samples.memory[flat // 2 : flat]
            middle = len(steady) // 2
            figures = f"{samples.changes} changes, entries {samples.entries}, memory {samples.memory}"
            assert statistics.mean(steady[middle:]) < 1.1 * statistics.mean(steady[:middle]) + (1 << 20), figures
            assert max(steady) < 1.3 * statistics.median(steady) + (1 << 20), figures
            assert usual < changes_per_second * (retain_seconds * 1.3 + 8), figures
            (stream,) = status["streams"]
            assert stream["held_back_by"] == ["audit"]
            assert [each["external"] for each in stream["readers"] if each["name"] == "audit"] == [True]
            assert "group audit" in [problem["part"] for problem in status["problems"]]
            shop.wait_published()
            for dsn, sink in ((target_dsn, "one"), (two_dsn, "two")):
                shop.wait_applied(dsn, sink)
                assert rows(dsn, "replica.rows") == rows(source_dsn, "rows")
            assert all(command.running for command in commands)
            print(figures)
