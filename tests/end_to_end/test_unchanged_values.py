"""Large values that an update leaves out: read again, or named as absent; never NULL, and no row goes back."""

from __future__ import annotations

import json
import random
import time
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from functools import partial
from pathlib import Path
from typing import Any, cast

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
    """A pipeline over both tables, which are not made yet; nothing is started."""
    with a_shop(source_dsn, target_dsn, redis_url, pipeline_name, tmp_path) as made:
        yield made


@contextmanager
def a_shop(source_dsn: str, target_dsn: str, redis_url: str, name: str, directory: Path) -> Iterator[Pipeline]:
    environment = {"TARGET_DSN": target_dsn}
    with closing(
        Pipeline(name, source_dsn, redis_url, directory, CONFIGURATION, environment, transport_options=OPTIONS)
    ) as pipeline:
        yield pipeline


def start(shop: Pipeline, rows: int) -> tuple[Command, Command]:
    """Fill the tables; start the reader and the sink, with triggers in the replica that watch `rev`."""
    large_values.seed(shop.source_dsn, rows)
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
    ("rows", "updates", "kills"),
    [pytest.param(80, 1_500, 3, id="short"), pytest.param(400, 20_000, 10, id="long", marks=pytest.mark.soak)],
)
@pytest.mark.timeout(900)
def test_no_value_is_lost_when_updates_leave_large_ones_out_and_the_reader_is_killed(
    shop: Pipeline, embedded_only: None, rows: int, updates: int, kills: int
) -> None:
    reading, chance = Reading(shop), random.Random(7)
    with reading.running():
        reader, _ = start(shop, rows)
        load = Load(shop.source_dsn, rows, updates)
        began = time.monotonic()
        load.start()
        for number in range(kills):
            with slow_chunk_reads(shop, number) if number % 2 else nullcontext():
                if number % 2:
                    shop.redis.xadd(shop.keys.requests, EVERYTHING)
                part = updates * (number + chance.random()) / kills
                wait_until(f"{part:.0f} updates", lambda part=part: load.made >= part or not load.running)  # type: ignore[misc]
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
    ("rows", "updates"),
    [pytest.param(60, 700, id="short"), pytest.param(400, 20_000, id="long", marks=pytest.mark.soak)],
)
@pytest.mark.timeout(1200)
def test_no_older_state_wins_while_commits_are_invisible(
    target_dsn: str,
    redis_url: str,
    pipeline_name: str,
    tmp_path: Path,
    embedded_only: None,
    rows: int,
    updates: int,
) -> None:
    with (
        PostgresServer.start() as server,
        servers.database(server, "source") as source_dsn,
        a_shop(source_dsn, target_dsn, redis_url, pipeline_name, tmp_path) as shop,
    ):
        reading = Reading(shop)
        with reading.running():
            reader, _ = start(shop, rows)
            load = Load(source_dsn, rows, updates, local=0.98)
            load.start()
            shop.redis.xadd(shop.keys.requests, EVERYTHING)
            holds = hold_again_and_again(shop, load)
            load.join()
            assert_nothing_wrong(shop)
        print(f"{load.made} updates, {holds} times commits were held, entries: {dict(reading.seen)}")
        assert holds > 2
        assert reading.seen["reread"] > 0
        assert reader.running, reader.output


def test_what_waits_to_be_read_again_is_published_by_run_once_in_its_order(shop: Pipeline) -> None:
    """Whatever becomes of the row meanwhile, in a stream that two events share."""
    shop.path.write_text(shop.path.read_text().replace("[events.whole_page]", '[events.whole_page]\nstream = "pages"'))
    shop.path.write_text(shop.path.read_text().replace("[events.part_page]", '[events.part_page]\nstream = "pages"'))
    large_values.seed(shop.source_dsn, 8)
    shop.run("cdc.cli", "run", "--once")
    before = len(of_pages(shop))
    with psycopg.connect(shop.source_dsn) as connection:
        for table in TABLES:
            for number in range(8):
                connection.execute(f"UPDATE {table} SET rev = 10, name = 'first' WHERE id = {number}".encode())
            connection.execute(f"DELETE FROM {table} WHERE id = 1".encode())
            connection.execute(f"DELETE FROM {table} WHERE id = 2".encode())
            connection.execute(*large_values.inserting(table, 2, 20))
            connection.execute(f"UPDATE {table} SET id = 103 WHERE id = 3".encode())
            connection.execute(f"UPDATE {table} SET rev = 11, tags = '{{11}}' WHERE id = 4".encode())
        connection.commit()
    shop.run("cdc.cli", "run", "--once")
    told = of_pages(shop)[before:]
    whole = [entry for entry in told if entry[0] == "whole_page.v1"]
    assert sorted(entry[1:] for entry in whole if entry[3] == "reread") == [
        ("upsert", number, "reread", rev)
        for number, rev in [(0, 10), (2, 20), (4, 11), (5, 10), (6, 10), (7, 10), (103, 10)]
    ]
    assert [entry[1:3] for entry in whole if entry[3] != "reread"] == [
        ("delete", 1), ("delete", 2), ("upsert", 2), ("delete", 3)
    ]  # fmt: skip
    assert [entry[3] for entry in told] == sorted((entry[3] for entry in told), key="reread".__eq__)
    for command in ("tables", "run"):
        shop.run("sinks.cli", command, "copy", "--apply" if command == "tables" else "--once")
    checker.assert_replica_equals_source(shop.source_dsn, shop.environment["TARGET_DSN"], TABLES)

    with psycopg.connect(shop.source_dsn) as connection:
        connection.execute("UPDATE whole_pages SET rev = 30")
        connection.execute("TRUNCATE whole_pages")
        connection.execute(*large_values.inserting("whole_pages", 5, 31))
        connection.commit()
        connection.execute("UPDATE whole_pages SET rev = 32")
    shop.run("cdc.cli", "run", "--once")
    assert [entry[1:] for entry in of_pages(shop)[before + len(told) :]] == [
        ("truncate", None, "", None), ("upsert", 5, "", 31), ("upsert", 5, "reread", 32)
    ]  # fmt: skip
    shop.run("sinks.cli", "run", "copy", "--once")
    checker.assert_replica_equals_source(shop.source_dsn, shop.environment["TARGET_DSN"], TABLES)


def of_pages(shop: Pipeline) -> list[tuple[Any, ...]]:
    """Type, operation, id, origin and `rev` of each entry but marks."""
    found = []
    for _, fields in cast(Any, shop.redis.xrange(shop.keys.stream("pages", 1))):
        if fields[b"op"] != b"mark":
            key, state = (json.loads(fields.get(name, b"{}")) for name in (b"key", b"state"))
            origin = fields.get(b"origin", b"").decode()
            found.append((fields[b"type"].decode(), fields[b"op"].decode(), key.get("id"), origin, state.get("rev")))
    return found
