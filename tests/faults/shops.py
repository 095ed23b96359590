"""A small pipeline on a Postgres of its own, for faults of the source: three tables, one sink."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Collection, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

import psycopg
import pytest
from _pytest.mark import ParameterSet

from cdc.demo.servers import PostgresServer
from tests.processes import Pipeline, closing, wait_until

CONFIGURATION = """
[events.row]
table = "rows"
columns = ["id", "name"]
[events.other]
table = "others"
columns = ["id"]
[sinks.copy]
type = "postgres"
dsn = "${TARGET_DSN}"
[sinks.copy.tables]
row = "replica.rows"
other = "replica.others"
"""
TABLES = {"rows": "id, name", "others": "id"}
SCHEMA = """
CREATE TABLE rows (id int PRIMARY KEY, name text);
CREATE TABLE others (id int PRIMARY KEY);
CREATE TABLE unmapped (filler text);
INSERT INTO rows SELECT i, 'old' FROM generate_series(1, 20) i;
INSERT INTO others VALUES (1), (2);
"""


def some(names: Iterable[str], long: Collection[str]) -> list[ParameterSet]:
    """Parameters of a test, of which those that are `long` run in the soak only: others show the same in short."""
    return [pytest.param(name, marks=pytest.mark.soak if name in long else ()) for name in names]


@contextmanager
def a_shop(
    source_dsn: str, target_dsn: str, redis_url: str, name: str, directory: Path, options: str = ""
) -> Iterator[Pipeline]:
    """The tables, mapped; nothing is started."""
    execute(source_dsn, SCHEMA)
    environment = {"TARGET_DSN": target_dsn}
    transport = f"confirm_delay_seconds = 0.3\n{options}"
    pipeline = Pipeline(name, source_dsn, redis_url, directory, CONFIGURATION, environment, transport_options=transport)
    with closing(pipeline) as made:
        yield made


def execute(dsn: str, *statements: str) -> None:
    """Run statements, each a transaction of its own."""
    with psycopg.connect(dsn, autocommit=True) as connection:
        for statement in statements:
            connection.execute(statement.encode())


def one(dsn: str, query: str) -> object:
    """The one value that a query gives."""
    with psycopg.connect(dsn, autocommit=True) as connection:
        row = connection.execute(query.encode()).fetchone()
    assert row is not None
    return row[0]


def contents(dsn: str, schema: str) -> dict[str, list[tuple[object, ...]]]:
    """Every row of every mapped table; a table that is not there has none."""
    found = {}
    with psycopg.connect(dsn) as connection:
        for table, columns in TABLES.items():
            there = connection.execute("SELECT to_regclass(%s)", (f"{schema}.{table}",)).fetchone() != (None,)
            query = f"SELECT {columns} FROM {schema}.{table} ORDER BY id"
            found[table] = connection.execute(query.encode()).fetchall() if there else []
    return found


def wait_until_equal(shop: Pipeline, source_dsn: str | None = None, seconds: float = 60) -> None:
    """Wait until the replica is the source."""
    source, target = source_dsn or shop.source_dsn, shop.environment["TARGET_DSN"]
    wait_until(
        "the replica to equal the source", lambda: contents(source, "public") == contents(target, "replica"), seconds
    )


def heal(shop: Pipeline) -> None:
    """Do what the remedy says: ask for a snapshot of everything, start the reader; it begins a new epoch."""
    shop.run("cdc.cli", "snapshot", "--all")
    reader = shop.reader()
    wait_until("a new epoch", lambda: "so a new epoch begins" in reader.output)
    wait_until_equal(shop)


@contextmanager
def stopped(server: PostgresServer) -> Iterator[None]:
    """The server is down, as after a power cut, while the block runs."""
    server.stop("immediate")
    yield
    server.start_again()


def keep_disk(server: PostgresServer) -> Path:
    """A copy of the disk as it is now; the server restarts meanwhile."""
    kept = server.directory / "kept"
    shutil.rmtree(kept, ignore_errors=True)
    with stopped(server):
        _copy(server.data_directory, kept)
    return kept


def restore_disk(server: PostgresServer, kept: Path) -> None:
    """Have the server run on a disk as it was."""
    with stopped(server):
        shutil.rmtree(server.data_directory)
        _copy(kept, server.data_directory)
        (server.data_directory / "postmaster.pid").unlink(missing_ok=True)


def _copy(source: Path, target: Path) -> None:
    subprocess.run(["cp", "-a", str(source), str(target)], check=True)
