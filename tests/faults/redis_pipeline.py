"""A small pipeline of two streams on a Redis of the test's own, for faults of Redis."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import psycopg

from cdc.demo.servers import ValkeyServer
from tests.processes import Command, Pipeline, closing, wait_until
from transforms.position import LSN

ROWS = 20
CONFIGURATION = """
[events.row]
table = "rows"
columns = ["id", "name"]
[events.other]
table = "others"
columns = ["id", "name"]
[sinks.copy]
type = "postgres"
dsn = "${TARGET_DSN}"
[sinks.copy.tables]
row = "replica.rows"
other = "replica.others"
"""
TABLES = ("rows", "others")


class RedisPipeline(Pipeline):
    """Its two tables are compared by `wait_until_equal`."""

    reading: Command
    applying: Command

    def start(self) -> None:
        """Reader and sink, until the replica is what the source is."""
        self.reading, self.applying = self.reader(), self.sink("copy")
        self.wait_until_equal()

    def execute(self, statement: str) -> None:
        """As the application that owns the source."""
        with psycopg.connect(self.source_dsn, autocommit=True) as connection:
            connection.execute(statement.encode())

    def rows(self, dsn: str, schema: str) -> dict[str, list[tuple[Any, ...]]]:
        """What is in both tables."""
        with psycopg.connect(dsn) as connection:
            there = connection.execute("SELECT to_regclass(%s || '.others')", (schema,)).fetchone()
            if there == (None,):
                return {}
            return {
                table: connection.execute(f"SELECT id, name FROM {schema}.{table} ORDER BY id".encode()).fetchall()
                for table in TABLES
            }

    def is_equal(self) -> bool:
        """Whether replica and source hold the same now."""
        return self.rows(self.environment["TARGET_DSN"], "replica") == self.rows(self.source_dsn, "public")

    def wait_until_equal(self, seconds: float = 60.0) -> None:
        """Wait for it, with both processes running."""

        def equal() -> bool:
            assert self.reading.running, self.reading.output
            assert self.applying.running, self.applying.output
            return self.is_equal()

        wait_until("the replica to be what the source is", equal, seconds)

    def confirmed(self) -> LSN:
        """What the slot may forget."""
        with psycopg.connect(self.source_dsn) as connection:
            row = connection.execute(
                "SELECT confirmed_flush_lsn::text FROM pg_replication_slots WHERE slot_name = %s", (f"cdc_{self.name}",)
            ).fetchone()
        assert row is not None
        return LSN.parse(row[0])

    def state(self) -> dict[str, Any]:
        """What the reader last said of itself."""
        told = self.redis.get(self.keys.reader_status)
        return dict(json.loads(told)) if isinstance(told, bytes) else {}

    def says(self, command: Command, words: str, since: int = 0) -> None:
        """Wait until a process has logged these words behind the first `since` characters of its log."""
        wait_until(f"the log to say {words!r}", lambda: words in command.output[since:], 30)


@contextmanager
def redis_pipeline(
    server: ValkeyServer, source_dsn: str, target_dsn: str, name: str, directory: Path, options: str
) -> Iterator[RedisPipeline]:
    """With rows in its tables, and nothing started."""
    with psycopg.connect(source_dsn) as connection:
        for table in TABLES:
            connection.execute(f"CREATE TABLE {table} (id int PRIMARY KEY, name text)".encode())
            connection.execute(f"INSERT INTO {table} SELECT i, 'old' FROM generate_series(1, {ROWS}) i".encode())
    environment = {"TARGET_DSN": target_dsn}
    made = RedisPipeline(
        name, source_dsn, server.url(), directory, CONFIGURATION, environment, transport_options=options
    )
    with closing(made):
        yield made
