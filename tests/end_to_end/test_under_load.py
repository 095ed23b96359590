"""Snapshot, stream and sink under load, with processes killed: the checker finds nothing."""

from __future__ import annotations

import json
import os
import random
import signal
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress

import psycopg
import pytest

from tests import checker, workload
from tests.checker import assert_nothing_wrong, confirmed_stays_behind_published
from tests.processes import Command, Pipeline, wait_until
from tests.workload import Workload


def start(shop: Pipeline, rows: int) -> tuple[Command, Command]:
    """Seed the source, start the reader and the sink, with triggers in the replica that watch `rev`."""
    workload.seed(shop.source_dsn, rows)
    reader = shop.reader()
    wait_until("the slot", lambda: shop.published)
    shop.run("sinks.cli", "tables", "copy", "--apply")
    checker.watch_revs(shop.environment["TARGET_DSN"])
    return reader, shop.sink("copy")


@contextmanager
def slow_chunk_reads(shop: Pipeline, seed: int) -> Iterator[None]:
    """Stop the server process that reads a chunk for a while, again and again, while everything else goes on."""
    stop, chance = threading.Event(), random.Random(seed)

    def hold() -> None:
        with psycopg.connect(shop.source_dsn, autocommit=True) as connection:
            while not stop.wait(0.01):
                rows = connection.execute(
                    "SELECT pid FROM pg_stat_activity WHERE query LIKE 'COPY (SELECT%' AND state = 'active'"
                    " AND datname = current_database() AND pid <> pg_backend_pid()"
                ).fetchall()
                for (pid,) in rows:
                    with suppress(ProcessLookupError):  # its reader was killed, and so it has ended
                        os.kill(pid, signal.SIGSTOP)
                        stop.wait(chance.uniform(0.05, 0.4))
                        os.kill(pid, signal.SIGCONT)

    thread = threading.Thread(target=hold)
    thread.start()
    try:
        yield
    finally:
        stop.set()
        thread.join()


def kill_at_random(shop: Pipeline, commands: list[Command], kills: int, seconds: float, seed: int) -> None:
    """SIGKILL each command so often within about so many seconds, and start it again at once.

    A snapshot of everything is asked for before each round, so that there is always one in hand.
    """
    chance = random.Random(seed)
    labels = json.dumps([label for label, _, _ in workload.COLUMNS.values()])
    for _ in range(kills):
        shop.redis.xadd(shop.keys.requests, {"events": labels})
        for command in chance.sample(commands, len(commands)):
            time.sleep(chance.uniform(0, 2 * seconds / kills / len(commands)))
            assert command.running, command.output
            command.kill()
            command.start()


@pytest.mark.parametrize(
    ("rows", "seconds"),
    [pytest.param(10_000, 5, id="short"), pytest.param(200_000, 60, id="long", marks=pytest.mark.soak)],
)
@pytest.mark.timeout(600)
def test_replica_equals_source_after_a_snapshot_under_load(shop: Pipeline, rows: int, seconds: float) -> None:
    start(shop, rows)
    with (
        confirmed_stays_behind_published(shop),
        Workload(shop.source_dsn, seed=11, keys=rows // 10).running() as record,
    ):
        time.sleep(seconds)  # the load runs for so long
    assert_nothing_wrong(shop, record)


@pytest.mark.parametrize(
    ("rows", "seconds", "kills"),
    [pytest.param(10_000, 6, 5, id="short"), pytest.param(200_000, 60, 20, id="long", marks=pytest.mark.soak)],
)
@pytest.mark.timeout(600)
def test_nothing_is_lost_or_doubled_when_reader_and_sink_are_killed(
    shop: Pipeline, embedded_only: None, rows: int, seconds: float, kills: int
) -> None:
    reader, sink = start(shop, rows)
    load = Workload(shop.source_dsn, seed=12, keys=rows // 10)
    with confirmed_stays_behind_published(shop), load.running() as record, slow_chunk_reads(shop, 12):
        kill_at_random(shop, [reader, sink], kills, seconds, seed=12)
    assert_nothing_wrong(shop, record)


@pytest.mark.timeout(300)
def test_a_damaged_replica_is_healed_by_a_snapshot_under_load(shop: Pipeline) -> None:
    start(shop, 10_000)
    target = shop.environment["TARGET_DSN"]
    shop.wait_published()
    shop.wait_applied(target, "copy")
    with Workload(shop.source_dsn, seed=13, keys=1_000).running() as record:
        with psycopg.connect(target, autocommit=True) as connection:
            connection.execute("UPDATE replica.accounts SET name = 'damaged' WHERE id % 100 = 7")
            connection.execute("DELETE FROM replica.accounts WHERE id % 100 = 9")
            connection.execute(
                "INSERT INTO replica.accounts (id, rev, name)"
                " SELECT 1000000 + i, 0, 'extra' FROM generate_series(1, 20) i"
            )
        assert "published account.v1" in shop.run("cdc.cli", "snapshot", "account", "--wait")
    assert_nothing_wrong(shop, record)


@pytest.mark.parametrize(
    ("rows", "most_bytes"),
    [pytest.param(150_000, 90e6, id="short"), pytest.param(500_000, 150e6, id="long", marks=pytest.mark.soak)],
)
@pytest.mark.timeout(600)
def test_one_giant_transaction_passes_in_bounded_memory(shop: Pipeline, rows: int, most_bytes: float) -> None:
    reader, sink = start(shop, 50)
    target = shop.environment["TARGET_DSN"]
    shop.wait_published()
    shop.wait_applied(target, "copy")
    peak = {"reader": 0, "sink": 0}
    statuses: set[object] = set()

    def measure() -> bool:
        for name, command in (("reader", reader), ("sink", sink)):
            peak[name] = max(peak[name], command.resident_bytes)
        with psycopg.connect(shop.source_dsn) as connection:
            row = connection.execute(
                "SELECT reply_time FROM pg_stat_replication WHERE application_name = %s", (f"statecast_{shop.name}",)
            ).fetchone()
        statuses.add(row and row[0])
        return False

    with psycopg.connect(shop.source_dsn) as connection:
        connection.execute(
            "INSERT INTO accounts (id, rev, name, balance, doc)"
            " SELECT i, 0, 'name ' || i, i / 7.0, jsonb_build_object('n', i) FROM generate_series(1000, %s) i",
            (999 + rows,),
        )
    position = shop.flush_position()
    wait_until("all of it to be published", lambda: measure() or shop.published >= position, 240)
    ends = shop.last_ids()
    wait_until(
        "all of it to be applied",
        lambda: measure() or shop.checkpoints(target, "copy").get("account") == ends["account"],
        240,
    )
    checker.assert_replica_equals_source(shop.source_dsn, target)
    assert max(peak.values()) < most_bytes, peak
    assert len(statuses) > 1, "no status update was sent meanwhile"


@pytest.mark.timeout(180)
def test_the_owner_may_change_every_mapped_table(shop: Pipeline) -> None:
    reader, _ = start(shop, 500)
    shop.wait_published()
    target = shop.environment["TARGET_DSN"]
    with psycopg.connect(shop.source_dsn, autocommit=True) as owner:
        for table in workload.COLUMNS:
            run_as_owner(
                owner,
                table,
                "ALTER TABLE {table} ADD COLUMN added int DEFAULT 7",
                "UPDATE {table} SET added = added + 1",
                "ALTER TABLE {table} REPLICA IDENTITY FULL",
                "UPDATE {table} SET rev = rev + 1",
                "DELETE FROM {table} WHERE ({key}) IN (SELECT {key} FROM {table} LIMIT 1)",
                "ALTER TABLE {table} REPLICA IDENTITY DEFAULT",
                "ALTER TABLE {table} DROP COLUMN added",
                "UPDATE {table} SET rev = rev + 1",
            )
        shop.wait_published()
        shop.wait_applied(target, "copy")
        checker.assert_replica_equals_source(shop.source_dsn, target)
        for table in workload.COLUMNS:
            run_as_owner(
                owner,
                table,
                "ALTER TABLE {table} ALTER COLUMN rev TYPE numeric",
                "UPDATE {table} SET rev = rev + 0.5",
                "ALTER TABLE {table} DROP COLUMN rev",
                "UPDATE {table} SET {first} = {first}",
                "DELETE FROM {table} WHERE ({key}) IN (SELECT {key} FROM {table} LIMIT 1)",
            )
        shop.wait_published()
    assert reader.running
    assert "has no column rev" in reader.output
    stopped = json.loads(shop.redis.hget(shop.keys.meta, "stopped") or b"{}")
    assert len(stopped) == len(workload.COLUMNS)


def run_as_owner(owner: psycopg.Connection, table: str, *statements: str) -> None:
    key = workload.COLUMNS[table][2]
    for statement in statements:
        owner.execute(statement.format(table=table, key=", ".join(key), first=key[0]).encode())
