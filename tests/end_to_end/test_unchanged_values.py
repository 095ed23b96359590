"""Large values that an update leaves out: read again, or named as absent; never NULL, and no row goes back."""

from __future__ import annotations

import random
import time
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import psycopg
import pytest

from cdc.demo.servers import PostgresServer
from tests import checker, servers
from tests.end_to_end import large_values
from tests.end_to_end.large_values import CONFIGURATION, TABLES, Load, Reading
from tests.end_to_end.test_under_load import slow_chunk_reads
from tests.processes import Command, Pipeline, closing, wait_until
from transforms.position import LSN

EVERYTHING: Any = {"events": '["whole_page.v1", "part_page.v1"]'}
OPTIONS = "confirm_delay_seconds = 0.3\nretain = '0s'"


@pytest.fixture
def shop(source_dsn: str, target_dsn: str, redis_url: str, pipeline_name: str, tmp_path: Path) -> Iterator[Pipeline]:
    """A pipeline over both tables, which are filled; nothing is started."""
    with a_shop(source_dsn, target_dsn, redis_url, pipeline_name, tmp_path) as made:
        yield made


@contextmanager
def a_shop(source_dsn: str, target_dsn: str, redis_url: str, name: str, directory: Path) -> Iterator[Pipeline]:
    large_values.seed(source_dsn)
    environment = {"TARGET_DSN": target_dsn}
    with closing(
        Pipeline(name, source_dsn, redis_url, directory, CONFIGURATION, environment, transport_options=OPTIONS)
    ) as pipeline:
        yield pipeline


def start(shop: Pipeline) -> tuple[Command, Command]:
    """Start the reader and the sink, with triggers in the replica that watch `rev`."""
    reader = shop.reader()
    wait_until("the slot", lambda: shop.published)
    shop.run("sinks.cli", "tables", "copy", "--apply")
    checker.watch_revs(shop.environment["TARGET_DSN"], TABLES)
    return reader, shop.sink("copy")


def assert_nothing_wrong(shop: Pipeline) -> None:
    target = shop.environment["TARGET_DSN"]
    shop.wait_published()
    shop.wait_applied(target, "copy")
    counts = checker.assert_replica_equals_source(shop.source_dsn, target, TABLES)
    assert min(counts.values()) > 0
    checker.assert_revs_never_fell(target)


@pytest.mark.parametrize(
    ("updates", "kills"),
    [pytest.param(1_500, 3, id="short"), pytest.param(20_000, 10, id="long", marks=pytest.mark.soak)],
)
@pytest.mark.timeout(900)
def test_no_value_is_lost_when_updates_leave_large_ones_out_and_the_reader_is_killed(
    shop: Pipeline, embedded_only: None, updates: int, kills: int
) -> None:
    reading, chance = Reading(shop), random.Random(7)
    with reading.running():
        reader, _ = start(shop)
        load = Load(shop.source_dsn, updates)
        began = time.monotonic()
        load.start()
        with slow_chunk_reads(shop, 7):
            for number in range(kills):
                part = updates * (number + chance.random()) / kills
                wait_until(f"{part:.0f} updates", lambda part=part: load.made >= part or not load.running)  # type: ignore[misc]
                if number % 2:
                    shop.redis.xadd(shop.keys.requests, EVERYTHING)
                assert reader.running, reader.output
                reader.kill()
                reader.start()
            load.join()
        written = time.monotonic() - began
        assert_nothing_wrong(shop)
    print(f"{load.made} updates in {written:.1f} s, {kills} kills, entries: {dict(reading.seen)}")
    assert min(reading.seen[kind] for kind in ("live", "partial", "reread", "snapshot", "delete")) > 0


def hold_commits(dsn: str, *, held: bool) -> None:
    """Have commits wait for a synchronous standby that is not there, or no longer."""
    with psycopg.connect(dsn, autocommit=True) as connection:
        connection.execute("SET synchronous_commit = local")
        connection.execute(f"ALTER SYSTEM SET synchronous_standby_names = '{'nobody' if held else ''}'".encode())
        connection.execute("SELECT pg_reload_conf()")


def hanging(dsn: str) -> int:
    """How many commits wait, in the log but invisible."""
    with psycopg.connect(dsn) as connection:
        row = connection.execute("SELECT count(*) FROM pg_stat_activity WHERE wait_event = 'SyncRep'").fetchone()
    assert row is not None
    return int(row[0])


def is_sent(dsn: str, position: LSN) -> bool:
    """Whether the reader was sent all of the log up to there."""
    with psycopg.connect(dsn) as connection:
        row = connection.execute(
            "SELECT bool_and(sent_lsn >= %s) FROM pg_stat_replication WHERE state = 'streaming'", [str(position)]
        ).fetchone()
    return row == (True,)


def hold_again_and_again(shop: Pipeline, load: Load) -> int:
    """While there is load, have a commit hang until the reader was sent it; returns how often one did."""
    dsn, holds = shop.source_dsn, 0
    while load.running:
        hold_commits(dsn, held=True)
        wait_until("a commit to hang", lambda: hanging(dsn) or not load.running)
        position = shop.flush_position()
        wait_until("what hangs to be sent", partial(is_sent, dsn, position))
        holds += hanging(dsn) > 0
        hold_commits(dsn, held=False)
    return holds


@pytest.mark.parametrize(
    "updates", [pytest.param(800, id="short"), pytest.param(20_000, id="long", marks=pytest.mark.soak)]
)
@pytest.mark.timeout(1200)
def test_no_older_state_wins_while_commits_are_invisible(
    target_dsn: str, redis_url: str, pipeline_name: str, tmp_path: Path, embedded_only: None, updates: int
) -> None:
    with (
        PostgresServer.start() as server,
        servers.database(server, "source") as source_dsn,
        a_shop(source_dsn, target_dsn, redis_url, pipeline_name, tmp_path) as shop,
    ):
        reading = Reading(shop)
        with reading.running():
            reader, _ = start(shop)
            load = Load(source_dsn, updates, local=0.98)
            load.start()
            shop.redis.xadd(shop.keys.requests, EVERYTHING)
            holds = hold_again_and_again(shop, load)
            load.join()
            assert_nothing_wrong(shop)
        print(f"{load.made} updates, {holds} times commits were held, entries: {dict(reading.seen)}")
        assert holds > 2
        assert reading.seen["reread"] > 0
        assert reader.running, reader.output
