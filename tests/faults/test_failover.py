"""The source fails over to a standby that keeps a copy of the slot (PostgreSQL 17 or newer).

The reader's DSN names both hosts. Up to the fork nothing is lost and nothing stops; beyond it the reader says so.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from psycopg.conninfo import make_conninfo

from cdc.demo.servers import PostgresServer
from tests.faults import shops
from tests.faults.shops import execute, heal, one, wait_until_equal
from tests.processes import Pipeline, wait_until

STANDBY = {"primary_slot_name": "standby", "hot_standby_feedback": "on"}
BY_ITSELF = pytest.param("on", marks=pytest.mark.soak, id="by its worker, each half minute")
AT_ONCE = pytest.param("off", id="when it is told to")
"""How the standby copies slots: its `sync_replication_slots`."""


@contextmanager
def primary_and_standby(database: str, sync: str) -> Iterator[tuple[PostgresServer, PostgresServer]]:
    """A primary with a database, and a standby that keeps copies of the primary's slots."""
    with PostgresServer.start(version=18) as primary:
        execute(primary.dsn(), f"CREATE DATABASE {database}", "SELECT pg_create_physical_replication_slot('standby')")
        link = f"{primary.dsn(database)} application_name=standby"
        settings = {**STANDBY, "sync_replication_slots": sync, "primary_conninfo": link}
        with PostgresServer.backup_of(primary, settings=settings, standby=True) as standby:
            yield primary, standby


@pytest.fixture(params=[AT_ONCE, BY_ITSELF])
def sync(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def servers(pipeline_name: str, sync: str) -> Iterator[tuple[PostgresServer, PostgresServer]]:
    with primary_and_standby(pipeline_name, sync) as both:
        yield both


@pytest.fixture
def shop(
    servers: tuple[PostgresServer, PostgresServer],
    target_dsn: str,
    redis_url: str,
    pipeline_name: str,
    tmp_path: Path,
    sync: str,
) -> Iterator[Pipeline]:
    """Reader and sink at work, the slot copied."""
    primary, standby = servers
    both = make_conninfo(
        primary.dsn(pipeline_name),
        host="127.0.0.1,127.0.0.1",
        port=f"{primary.port},{standby.port}",
        target_session_attrs="read-write",
    )
    with shops.a_shop(primary.dsn(pipeline_name), target_dsn, redis_url, pipeline_name, tmp_path) as made:
        made.environment["SOURCE_DSN"] = both
        made.reader()
        made.sink("copy")
        wait_until_equal(made)
        wait_until("the slot to be copied", lambda: is_ready(made, primary, standby, copy=sync == "off"))
        yield made


def is_ready(shop: Pipeline, primary: PostgresServer, standby: PostgresServer, *, copy: bool) -> object:
    """Whether the standby's copy of the slot would outlive a failover.

    A slot is copied once it has moved beyond where the standby began, which it does where the log does.
    """
    execute(primary.dsn(), "SELECT pg_log_standby_snapshot()")
    if copy:
        execute(standby.dsn(shop.name), "SELECT pg_sync_replication_slots()")
    return one(
        standby.dsn(),
        "SELECT count(*) FROM pg_replication_slots WHERE synced AND NOT temporary AND invalidation_reason IS NULL"
        f" AND slot_name = 'cdc_{shop.name}'",
    )


def fail_over(shop: Pipeline, primary: PostgresServer, standby: PostgresServer) -> None:
    primary.kill()
    execute(standby.dsn(), "SELECT pg_promote()")
    shop.source_dsn = standby.dsn(shop.name)


@pytest.mark.timeout(120)
def test_the_reader_follows_a_standby_that_has_all_that_was_published(
    servers: tuple[PostgresServer, PostgresServer], shop: Pipeline
) -> None:
    primary, standby = servers
    assert "synchronized_standby_slots" in shop.run("cdc.cli", "check")
    execute(primary.dsn(), "ALTER SYSTEM SET synchronized_standby_slots = 'standby'", "SELECT pg_reload_conf()")
    assert "standby: nothing is published before they have it" in " ".join(shop.run("cdc.cli", "check").split())
    for number in range(100, 150):
        execute(shop.source_dsn, f"INSERT INTO rows VALUES ({number}, 'before'); DELETE FROM rows WHERE id = 1")
    fail_over(shop, primary, standby)
    execute(shop.source_dsn, "UPDATE rows SET name = 'after' WHERE id = 2; INSERT INTO others VALUES (7)")
    wait_until_equal(shop)
    assert shop.commands[0].running
    assert "epoch" not in shop.commands[0].output
    assert shop.redis.hget(shop.keys.meta, "timeline") == b"2"


@pytest.mark.timeout(120)
def test_beyond_the_fork_the_reader_stops_and_a_snapshot_of_everything_heals(
    servers: tuple[PostgresServer, PostgresServer], shop: Pipeline
) -> None:
    primary, standby = servers
    standby.stop()
    execute(shop.source_dsn, "INSERT INTO rows VALUES (100, 'never was'); DELETE FROM rows WHERE id = 1")
    wait_until_equal(shop)
    primary.kill()
    standby.start_again()
    fail_over(shop, primary, standby)
    execute(shop.source_dsn, "UPDATE rows SET name = 'after' WHERE id = 2")
    assert shop.commands[0].wait() == 3
    assert "on another timeline, which began before what has been published" in shop.commands[0].output
    heal(shop)
