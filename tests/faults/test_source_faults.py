"""Faults of the source and of the link to it, while somebody writes: nothing lost, nothing twice, one reader at work.

The server's wal_sender_timeout is short, so that what takes a minute elsewhere takes seconds here.
"""

from __future__ import annotations

import itertools
import os
import random
import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any, cast

import psycopg
import pytest

from cdc.demo.servers import PostgresServer
from tests.faults import shops
from tests.faults.proxy import Proxy, Way
from tests.faults.shops import execute, one, wait_until_equal
from tests.processes import Command, Pipeline, wait_until

TIMEOUT_SECONDS = 2
SILENT_SECONDS = 2 * TIMEOUT_SECONDS
"""After how long the reader gives a silent server up."""
CANCEL_SECONDS = 2
"""How long it then tries to have a statement in hand cancelled, on each of its connections."""
SETTINGS = {"wal_sender_timeout": f"{TIMEOUT_SECONDS}s", "logical_decoding_work_mem": "64kB"}


@pytest.fixture(scope="module")
def source() -> Iterator[PostgresServer]:
    with PostgresServer.start(settings=SETTINGS) as server:
        yield server


@pytest.fixture
def shop(
    source: PostgresServer, target_dsn: str, redis_url: str, pipeline_name: str, tmp_path: Path
) -> Iterator[Pipeline]:
    """Nothing is started yet; the sink's database is on another server."""
    execute(source.dsn(), f"CREATE DATABASE {pipeline_name} STRATEGY file_copy")
    with shops.a_shop(source.dsn(pipeline_name), target_dsn, redis_url, pipeline_name, tmp_path) as made:
        yield made
        made.close()
        wait_until(
            "the slot to be free", lambda: not one(source.dsn(), "SELECT count(active_pid) FROM pg_replication_slots")
        )
        execute(source.dsn(), "SELECT pg_drop_replication_slot(slot_name) FROM pg_replication_slots")


@pytest.fixture
def link(shop: Pipeline) -> Iterator[Proxy]:
    """Between the reader and the source."""
    proxy, shop.environment["SOURCE_DSN"] = Proxy.of_dsn(shop.source_dsn)
    with proxy:
        yield proxy


def at_work(shop: Pipeline) -> Command:
    """A reader and a sink that have caught up; returns the reader."""
    reader = shop.reader()
    shop.sink("copy")
    wait_until_equal(shop)
    return reader


class Writer:
    """Inserts rows, each its own transaction, whatever happens to the server meanwhile."""

    def __init__(self, dsn: str) -> None:
        self._dsn = dsn
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run)
        self.committed = 0

    @contextmanager
    def running(self) -> Iterator[Writer]:
        self._thread.start()
        try:
            yield self
        finally:
            self._stop.set()
            self._thread.join()

    def _run(self) -> None:
        numbers = itertools.count(1_000)
        while not self._stop.is_set():
            try:
                with psycopg.connect(self._dsn, autocommit=True, connect_timeout=5) as connection:
                    while not self._stop.wait(0.002):
                        connection.execute("INSERT INTO rows VALUES (%s, 'written')", (next(numbers),))
                        self.committed += 1
            except psycopg.OperationalError:  # the fault; whether the last row is there, the source says in the end
                self._stop.wait(0.05)


def assert_each_row_came_once(shop: Pipeline) -> None:
    """What was inserted since the first snapshot is in the stream once each, and nothing else is."""
    wait_until_equal(shop)
    found = cast(list[Any], shop.redis.xrange(shop.keys.stream("row", 1)))
    keys = [fields[b"key"] for _, fields in found if b"origin" not in fields and fields[b"op"] == b"upsert"]
    with psycopg.connect(shop.source_dsn) as connection:
        rows = connection.execute("SELECT id FROM rows WHERE id >= 1000").fetchall()
    written = {f'{{"id":{number}}}'.encode() for (number,) in rows}
    assert len(keys) == len(set(keys))
    assert set(keys) == written
    assert written


def wait_for_more(shop: Pipeline, writer: Writer) -> None:
    """Wait until a row that is written from now on is published."""
    rows = writer.committed
    wait_until("rows", lambda: writer.committed > rows + 20)
    position = shop.flush_position()
    wait_until("them to be published", lambda: shop.published >= position)


def sessions(reader: Command) -> int:
    return reader.output.count("streaming from")


# --- the server ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("stops", [pytest.param(2, id="short"), pytest.param(200, id="long", marks=pytest.mark.soak)])
@pytest.mark.timeout(3600)
def test_a_source_that_crashes_under_load_again_and_again(source: PostgresServer, shop: Pipeline, stops: int) -> None:
    reader = at_work(shop)
    chance = random.Random(seed := int(os.environ.get("FAULT_SEED", "31")))
    print(f"FAULT_SEED={seed}")
    longest = 0.0
    with Writer(shop.source_dsn).running() as writer:
        for _ in range(stops):
            wait_for_more(shop, writer)
            time.sleep(chance.uniform(0, 0.2))
            source.stop("immediate")
            source.start_again()
            began = time.monotonic()
            wait_for_more(shop, writer)
            longest = max(longest, time.monotonic() - began)
    print(f"{stops} crashes, {writer.committed} rows, longest recovery {longest:.1f} s")
    assert_each_row_came_once(shop)
    assert reader.running


def test_a_source_ends_at_once_beside_a_reader_that_works_and_soon_beside_one_that_is_stopped(
    source: PostgresServer, shop: Pipeline
) -> None:
    reader = at_work(shop)
    with Writer(shop.source_dsn).running() as writer:
        wait_until("rows", lambda: writer.committed > 50)
        assert seconds_of(source.stop) < 5
        source.start_again()
        wait_until("the reader to go on", lambda: sessions(reader) == 2)
        wait_until("rows", lambda: writer.committed > 100)
        os.kill(reader.pid, signal.SIGSTOP)
        try:
            assert seconds_of(source.stop) < TIMEOUT_SECONDS + 5
            source.start_again()
        finally:
            os.kill(reader.pid, signal.SIGCONT)
        wait_until("the reader to go on", lambda: sessions(reader) == 3)
    assert_each_row_came_once(shop)


def seconds_of(act: Callable[[], object]) -> float:
    began = time.monotonic()
    act()
    return time.monotonic() - began


def test_a_walsender_that_is_ended_or_killed_is_replaced(source: PostgresServer, shop: Pipeline) -> None:
    reader = at_work(shop)
    pid = f"SELECT active_pid FROM pg_replication_slots WHERE slot_name = 'cdc_{shop.name}'"
    with Writer(shop.source_dsn).running() as writer:
        wait_until("rows", lambda: writer.committed > 50)
        assert one(shop.source_dsn, f"SELECT pg_terminate_backend(({pid}))")
        wait_until("the reader to go on", lambda: sessions(reader) == 2)
        os.kill(int(str(one(shop.source_dsn, pid))), signal.SIGKILL)  # all backends start again
        wait_until("the reader to go on", lambda: sessions(reader) == 3)
        rows = writer.committed
        wait_until("rows", lambda: writer.committed > rows + 50)
    assert_each_row_came_once(shop)


# --- the link --------------------------------------------------------------------------------------------------------


def within_a_frame(link: Proxy) -> None:
    link.cut_after(777, Way.DOWN)


def within_a_frame_with_reset(link: Proxy) -> None:
    link.cut_after(4_321, Way.DOWN, with_reset=True)


def half_close_up(link: Proxy) -> None:
    link.half_close(Way.UP)


def half_close_down(link: Proxy) -> None:
    link.half_close(Way.DOWN)


SOME = [within_a_frame, half_close_down, Proxy.reset]
ALL = [*SOME, Proxy.cut, within_a_frame_with_reset, half_close_up]


@pytest.mark.parametrize(
    "breaks", [pytest.param(SOME, id="short"), pytest.param(ALL * 5, id="long", marks=pytest.mark.soak)]
)
@pytest.mark.timeout(600)
def test_a_link_that_breaks_anywhere_is_made_again(
    shop: Pipeline, link: Proxy, breaks: list[Callable[[Proxy], None]]
) -> None:
    reader = at_work(shop)
    with Writer(shop.source_dsn).running() as writer:
        for break_it in breaks:
            wait_for_more(shop, writer)
            before = sessions(reader)
            break_it(link)
            wait_until("another session", lambda before=before: sessions(reader) > before)  # type: ignore[misc]
            link.heal()
    assert_each_row_came_once(shop)


@pytest.mark.parametrize("seconds", [pytest.param(0, id="short"), pytest.param(60, id="long", marks=pytest.mark.soak)])
@pytest.mark.timeout(240)
def test_a_link_that_falls_silent_is_noticed_and_given_up(shop: Pipeline, link: Proxy, seconds: float) -> None:
    reader = at_work(shop)
    with Writer(shop.source_dsn).running():
        link.black_hole()
        began = time.monotonic()
        wait_until("the reader to notice", lambda: "interrupted: " in reader.output)
        assert time.monotonic() - began < SILENT_SECONDS + 2 * CANCEL_SECONDS + 3
        assert "the server has been silent for" in reader.output
        wait_until("it to last", lambda: time.monotonic() - began > seconds)
        link.cut()
        link.heal()
        wait_until("the reader to go on", lambda: sessions(reader) == 2)
    assert_each_row_came_once(shop)


@pytest.mark.parametrize(
    ("rows", "bytes_per_second"),
    [pytest.param(3_000, 500_000, id="short"), pytest.param(200_000, 2_000_000, id="long", marks=pytest.mark.soak)],
)
@pytest.mark.timeout(600)
def test_a_slow_link_carries_a_large_transaction_in_one_session(
    shop: Pipeline, link: Proxy, rows: int, bytes_per_second: float
) -> None:
    reader = at_work(shop)
    link.throttle(bytes_per_second, Way.DOWN)
    execute(shop.source_dsn, f"INSERT INTO rows SELECT i, repeat('x', 1000) FROM generate_series(1000, {999 + rows}) i")
    wait_until_equal(shop, seconds=500)
    assert sessions(reader) == 1
    assert "interrupted" not in reader.output


def test_a_reader_that_waits_for_redis_does_not_take_the_source_for_silent(shop: Pipeline, link: Proxy) -> None:
    to_redis, shop.environment["REDIS_URL"] = Proxy.of_url(shop.redis_url)
    with to_redis:
        reader = at_work(shop)
        to_redis.black_hole()
        began = time.monotonic()
        execute(shop.source_dsn, "INSERT INTO rows SELECT i, repeat('x', 1000) FROM generate_series(1000, 9999) i")
        wait_until("longer than a silence may last", lambda: time.monotonic() - began > SILENT_SECONDS + 2)
        to_redis.heal()
        wait_until_equal(shop)
        assert sessions(reader) == 1
        assert "interrupted" not in reader.output


# --- two readers -----------------------------------------------------------------------------------------------------


def test_a_standby_is_in_the_status_and_takes_over_also_from_a_host_that_vanished(shop: Pipeline, link: Proxy) -> None:
    first = at_work(shop)
    shop.environment["SOURCE_DSN"] = shop.source_dsn
    second = shop.command("cdc.cli", "run", log="second")
    second.start()
    wait_until("it to be told", lambda: f"standby   PID {second.pid} on " in shop.run("cdc.cli", "status"))
    with Writer(shop.source_dsn).running():
        link.black_hole()
        began = time.monotonic()
        wait_until("the second to take over", lambda: "streaming from" in second.output)
        assert time.monotonic() - began < TIMEOUT_SECONDS + 5
        assert "standby   PID" not in shop.run("cdc.cli", "status")
        link.cut()
        link.heal()
        wait_until("the first to stand by", lambda: "standing by" in first.output)
        second.kill()
        began = time.monotonic()
        wait_until("the first to take over", lambda: sessions(first) == 2)
        assert time.monotonic() - began < 5
    assert_each_row_came_once(shop)


# --- transactions ----------------------------------------------------------------------------------------------------


def test_what_is_rolled_back_to_a_savepoint_is_in_no_stream(shop: Pipeline) -> None:
    """With little memory for decoding, so that the server spills all of it to disk."""
    reader = at_work(shop)
    with psycopg.connect(shop.source_dsn) as connection:
        for number in range(100):
            first = 1_000 + 1_000 * number
            connection.execute(
                f"INSERT INTO rows SELECT i, 'kept' FROM generate_series({first}, {first + 99}) i".encode()
            )
            connection.execute("SAVEPOINT undone")
            connection.execute("INSERT INTO rows SELECT i, 'undone' FROM generate_series(500000, 500199) i")
            connection.execute("DELETE FROM rows WHERE id < 10")
            connection.execute("ROLLBACK TO SAVEPOINT undone")
    assert_each_row_came_once(shop)
    assert reader.resident_bytes < 200e6


def test_a_prepared_transaction_is_applied_when_it_is_committed_and_never_when_it_is_not(
    source: PostgresServer, shop: Pipeline
) -> None:
    at_work(shop)
    for name, row in (("kept", 2_000), ("undone", 3_000)):
        execute(shop.source_dsn, f"BEGIN; INSERT INTO rows VALUES ({row}, '{name}'); PREPARE TRANSACTION '{name}'")
    execute(shop.source_dsn, "INSERT INTO rows VALUES (1000, 'between')")
    assert_each_row_came_once(shop)
    source.stop("immediate")
    source.start_again()
    execute(
        shop.source_dsn,
        "INSERT INTO rows VALUES (1001, 'later')",
        "COMMIT PREPARED 'kept'",
        "ROLLBACK PREPARED 'undone'",
    )
    wait_until(
        "it to be applied", lambda: (2_000, "kept") in shops.contents(shop.environment["TARGET_DSN"], "replica")["rows"]
    )
    assert_each_row_came_once(shop)


def test_who_holds_up_a_new_slot_is_named(shop: Pipeline) -> None:
    with closing(psycopg.connect(shop.source_dsn)) as forgotten:
        forgotten.execute("INSERT INTO unmapped VALUES ('x')")
        reader = shop.reader()
        told = f"the new slot waits for open transactions to end: PID {forgotten.info.backend_pid} (user postgres, "
        wait_until("it to be told", lambda: told in reader.output, 30)
        assert "idle in transaction" in reader.output
        assert told in " ".join(shop.run("cdc.cli", "status").split())
        execute(shop.source_dsn, f"SELECT pg_terminate_backend({forgotten.info.backend_pid})")
        wait_until("the reader to stream", lambda: "streaming from" in reader.output)


# --- what is idle, and the publication -------------------------------------------------------------------------------


def test_the_slot_of_an_idle_database_follows_a_busy_one(source: PostgresServer, shop: Pipeline) -> None:
    at_work(shop)
    slot = f"FROM pg_replication_slots WHERE slot_name = 'cdc_{shop.name}'"
    execute(
        source.dsn(), "CREATE TABLE busy AS SELECT repeat('x', 1000) FROM generate_series(1, 40000)", "DROP TABLE busy"
    )
    end = shop.flush_position()
    wait_until("it to follow", lambda: one(shop.source_dsn, f"SELECT confirmed_flush_lsn >= '{end}' {slot}"))


def test_a_publication_that_is_dropped_stops_the_reader_by_name(shop: Pipeline) -> None:
    reader = at_work(shop)
    execute(shop.source_dsn, f"DROP PUBLICATION cdc_{shop.name}", "UPDATE rows SET name = 'new' WHERE id = 1")
    assert reader.wait() == 3
    assert "publication" in reader.output
    assert "`cdc snapshot --all`" in reader.output
    shops.heal(shop)
