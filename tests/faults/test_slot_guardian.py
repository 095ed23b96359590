"""The slot is gone, is another one, is lost or is somebody else's: the reader says which, and nothing is made anew.

Only a snapshot of everything, asked for by a person, begins a new epoch; deleted rows are then in no replica.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from cdc.demo.servers import PostgresServer
from tests.faults import shops
from tests.faults.shops import execute, heal, one, wait_until_equal
from tests.processes import Pipeline, wait_until

SETTINGS = {"max_slot_wal_keep_size": "32MB", "max_wal_size": "64MB", "min_wal_size": "32MB"}
CHANGES = "DELETE FROM rows WHERE id = 3; UPDATE rows SET name = 'new' WHERE id = 4"
FILL = "INSERT INTO unmapped SELECT repeat('x', 1000) FROM generate_series(1, 20000)"


@pytest.fixture(scope="module")
def source() -> Iterator[PostgresServer]:
    with PostgresServer.start(settings=SETTINGS) as server:
        yield server


@pytest.fixture
def shop(
    source: PostgresServer, target_dsn: str, redis_url: str, pipeline_name: str, tmp_path: Path
) -> Iterator[Pipeline]:
    """A replica that is up to date, a sink at work, and a reader that has ended."""
    execute(source.dsn(), f"CREATE DATABASE {pipeline_name} STRATEGY file_copy")
    with shops.a_shop(source.dsn(pipeline_name), target_dsn, redis_url, pipeline_name, tmp_path) as made:
        made.run("cdc.cli", "run", "--once")
        made.sink("copy")
        wait_until_equal(made)
        yield made
        made.close()
        execute(source.dsn(), "SELECT pg_drop_replication_slot(slot_name) FROM pg_replication_slots WHERE NOT active")


def make_again(shop: Pipeline) -> None:
    shop.drop_slot()
    execute(shop.source_dsn, f"SELECT pg_create_logical_replication_slot('cdc_{shop.name}', 'pgoutput')")


def make_again_behind_changes(shop: Pipeline) -> None:
    shop.drop_slot()
    execute(shop.source_dsn, CHANGES, f"SELECT pg_create_logical_replication_slot('cdc_{shop.name}', 'pgoutput')")


def have_it_outgrown(shop: Pipeline) -> None:
    execute(shop.source_dsn, CHANGES, *[FILL] * 3, "CHECKPOINT")
    wait_until("it to be lost", lambda: wal_status(shop) == "lost")


def have_it_time_out(shop: Pipeline) -> None:
    execute(shop.source_dsn, "ALTER SYSTEM SET idle_replication_slot_timeout = '1s'", "SELECT pg_reload_conf()")
    wait_until("it to be lost", lambda: status_after_checkpoint(shop) == "lost")
    execute(shop.source_dsn, "ALTER SYSTEM RESET idle_replication_slot_timeout", "SELECT pg_reload_conf()")


def status_after_checkpoint(shop: Pipeline) -> object:
    execute(shop.source_dsn, "CHECKPOINT")
    return wal_status(shop)


def wal_status(shop: Pipeline) -> object:
    return one(shop.source_dsn, f"SELECT wal_status FROM pg_replication_slots WHERE slot_name = 'cdc_{shop.name}'")


@pytest.mark.parametrize(
    ("break_it", "told"),
    [
        (make_again, "the slot is confirmed up to"),
        pytest.param(make_again_behind_changes, "the slot is confirmed up to", marks=pytest.mark.soak),
        (have_it_outgrown, "the slot is lost: Postgres removed WAL that it still needed (max_slot_wal_keep_size)"),
        (have_it_time_out, "nobody read it for longer than idle_replication_slot_timeout"),
    ],
)
def test_a_slot_that_does_not_hold_what_comes_next_stops_the_reader_until_it_may_begin_anew(
    shop: Pipeline, break_it: Callable[[Pipeline], None], told: str
) -> None:
    break_it(shop)
    before = identity(shop)
    output = shop.run("cdc.cli", "run", expect=3)
    assert told in output
    assert "`cdc snapshot --all`" in output
    assert identity(shop) == before, "the slot was made anew, or moved"
    if wal_status(shop) == "lost":
        reason = told.removeprefix("the slot is lost: ")
        assert reason in json.loads(shop.run("cdc.cli", "status", "--json", expect=0))["problems"][0]["what"]
        assert reason in " ".join(shop.run("cdc.cli", "check", expect=1).split())
    execute(shop.source_dsn, "DELETE FROM rows WHERE id = 5")
    heal(shop)
    if one(shop.source_dsn, "SHOW server_version_num") >= "170000":  # type: ignore[operator]
        assert one(shop.source_dsn, f"SELECT failover FROM pg_replication_slots WHERE slot_name = 'cdc_{shop.name}'")


def identity(shop: Pipeline) -> object:
    return one(
        shop.source_dsn,
        "SELECT (confirmed_flush_lsn, restart_lsn)::text FROM pg_replication_slots"
        f" WHERE slot_name = 'cdc_{shop.name}'",
    )


@pytest.mark.parametrize(
    ("made", "told"),
    [
        pytest.param("pg_create_physical_replication_slot('{slot}')", "a physical one", marks=pytest.mark.soak),
        ("pg_create_logical_replication_slot('{slot}', 'pgoutput', false, true)", "two_phase"),
    ],
)
def test_a_slot_of_its_name_that_is_of_another_kind_is_left_alone(
    source: PostgresServer, redis_url: str, pipeline_name: str, tmp_path: Path, made: str, told: str
) -> None:
    slot = f"cdc_{pipeline_name}"
    execute(source.dsn(), f"CREATE DATABASE {pipeline_name} STRATEGY file_copy")
    dsn = source.dsn(pipeline_name)
    with shops.a_shop(dsn, "", redis_url, pipeline_name, tmp_path) as shop:
        execute(dsn, f"CREATE PUBLICATION {slot} FOR TABLE rows, others WITH (publish_via_partition_root = true)")
        execute(dsn, f"SELECT {made.format(slot=slot)}")
        assert told in shop.run("cdc.cli", "run", expect=3)
        shop.run("cdc.cli", "snapshot", "--all")
        assert told in shop.run("cdc.cli", "run", expect=3), "not even then: it may be in use"
    execute(dsn, f"SELECT pg_drop_replication_slot('{slot}')")


def test_a_slot_of_another_database_is_left_alone(shop: Pipeline, source: PostgresServer) -> None:
    shop.drop_slot()
    execute(source.dsn(), f"SELECT pg_create_logical_replication_slot('cdc_{shop.name}', 'pgoutput')")
    assert "the slot decodes 'postgres'" in shop.run("cdc.cli", "run", expect=3)


def test_a_slot_that_was_seen_missing_is_another_one_when_it_is_back(shop: Pipeline) -> None:
    shop.drop_slot()
    assert "the slot does not exist any more" in shop.run("cdc.cli", "run", expect=3)
    execute(shop.source_dsn, CHANGES, f"SELECT pg_create_logical_replication_slot('cdc_{shop.name}', 'pgoutput')")
    shop.redis.hset(shop.keys.meta, "published", str(shop.flush_position()))  # as if the log had gone back meanwhile
    assert "the one that does now is another one" in shop.run("cdc.cli", "run", expect=3)
    heal(shop)


def test_a_slot_and_a_redis_that_are_both_lost_begin_a_new_pipeline(shop: Pipeline) -> None:
    have_it_outgrown(shop)
    shop.redis.flushall()
    assert "the slot is lost" in shop.run("cdc.cli", "run", expect=3)
    shop.run("cdc.cli", "snapshot", "--all")
    shop.reader()
    wait_until_equal(shop)
    assert shop.redis.hget(shop.keys.meta, "incarnation")
