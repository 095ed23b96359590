"""What an operator counts on: an idle pipeline holds no WAL back, and a reader that is told to end does so at once."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import psycopg
import pytest

from tests.processes import Pipeline, closing, wait_until
from transforms.position import LSN

EVENTS = """
[events.customer]
table = "customers"
columns = ["id", "name"]
"""
HELD_BACK_BYTES = 48 << 20
CONFIRM_DELAY_SECONDS = 2.0
"""The default."""


@pytest.fixture
def shop(source_dsn: str, redis_url: str, pipeline_name: str, tmp_path: Path) -> Iterator[Pipeline]:
    """A mapped table and one that is not, the reader streaming."""
    with psycopg.connect(source_dsn) as connection:
        connection.execute("CREATE TABLE customers (id bigserial PRIMARY KEY, name text)")
        connection.execute("CREATE TABLE unmapped (id bigserial PRIMARY KEY, filler text)")
    pipeline = Pipeline(pipeline_name, source_dsn, redis_url, tmp_path, EVENTS, transport_options="")
    with closing(pipeline) as made:
        made.reader()
        made.wait_published()
        yield made


@contextmanager
def repeated(dsn: str, statement: str, pause_seconds: float = 0.0) -> Iterator[list[float]]:
    """Run a statement again and again, each in its own transaction; the list takes the time of each commit."""
    stop, committed = threading.Event(), list[float]()

    def work() -> None:
        with psycopg.connect(dsn, autocommit=True) as connection:
            while not stop.wait(pause_seconds):
                connection.execute(statement.encode())
                committed.append(time.monotonic())

    thread = threading.Thread(target=work)
    thread.start()
    try:
        yield committed
    finally:
        stop.set()
        thread.join()


def query(dsn: str, statement: str) -> tuple[object, ...]:
    with psycopg.connect(dsn, autocommit=True) as connection:
        row = connection.execute(statement.encode()).fetchone()
    assert row is not None
    return row


def number(shop: Pipeline, statement: str) -> int:
    return int(str(query(shop.source_dsn, statement)[0]))


def unmapped(rows: int) -> str:
    """A statement that writes about 130 bytes of WAL a row, to the table that is not mapped."""
    return f"INSERT INTO unmapped (filler) SELECT md5(n::text) FROM generate_series(1, {rows}) AS n"


def behind(shop: Pipeline, what: str) -> int:
    """How many bytes this position of the slot is behind the end of the log."""
    slot = f"FROM pg_replication_slots WHERE slot_name = 'cdc_{shop.name}'"
    return number(shop, f"SELECT pg_current_wal_insert_lsn() - {what} {slot}")


def test_the_slot_follows_writes_to_other_tables(shop: Pipeline) -> None:
    written = 0
    while written < 2 * HELD_BACK_BYTES:
        before = number(shop, "SELECT pg_current_wal_insert_lsn() - '0/0'")
        with psycopg.connect(shop.source_dsn, autocommit=True) as connection:
            connection.execute(unmapped(40_000).encode())
        written += number(shop, "SELECT pg_current_wal_insert_lsn() - '0/0'") - before
        wait_until("it to follow", lambda: behind(shop, "confirmed_flush_lsn") < HELD_BACK_BYTES)
    with repeated(shop.source_dsn, "CHECKPOINT", 1.0):
        wait_until("it to let go", lambda: behind(shop, "restart_lsn") < 2**20)


@pytest.mark.soak
@pytest.mark.timeout(400)
def test_writes_to_other_tables_hold_no_wal_back(shop: Pipeline) -> None:
    unconfirmed, held = [], []
    began = number(shop, "SELECT pg_current_wal_insert_lsn() - '0/0'")
    with repeated(shop.source_dsn, unmapped(460), 0.1):
        end = time.monotonic() + 300
        while time.monotonic() < end:
            unconfirmed.append(behind(shop, "confirmed_flush_lsn"))
            held.append(behind(shop, "restart_lsn"))
            time.sleep(0.5)
    written = number(shop, "SELECT pg_current_wal_insert_lsn() - '0/0'") - began
    assert written > 1.5 * HELD_BACK_BYTES, "the load was too small to show anything"
    assert max(unconfirmed) < HELD_BACK_BYTES
    # the server moves the slot's beginning no oftener than each 15 s, or with a checkpoint
    assert max(held) < HELD_BACK_BYTES
    with repeated(shop.source_dsn, "CHECKPOINT", 1.0):
        wait_until("it to let go", lambda: behind(shop, "restart_lsn") < 2**20)


def test_a_reader_that_is_told_to_end_under_load_ends_soon_and_goes_on_where_it_was(shop: Pipeline) -> None:
    positions: list[tuple[float, LSN]] = []
    with repeated(shop.source_dsn, "INSERT INTO customers (name) VALUES ('Ada')") as committed:
        while len(committed) < 3000 or time.monotonic() < committed[0] + 2 * CONFIRM_DELAY_SECONDS:
            position = query(shop.source_dsn, "SELECT pg_current_wal_insert_lsn()::text")[0]
            positions.append((time.monotonic(), LSN.parse(str(position))))
            time.sleep(0.05)
        told = time.monotonic()
        assert shop.commands[0].terminate() == 0
        assert time.monotonic() - told < 5
    assert "ending without" not in shop.commands[0].output
    confirmed = LSN.parse(str(query(shop.source_dsn, "SELECT confirmed_flush_lsn::text FROM pg_replication_slots")[0]))
    written_at = max(at for at, position in positions if position <= confirmed)
    assert told - written_at < CONFIRM_DELAY_SECONDS + 1.5, "more than the confirm delay's worth will be read again"
    shop.reader()
    shop.wait_published()
    info = shop.redis.xinfo_stream(shop.keys.stream("customer", 1))
    marks = 2  # of the empty table's snapshot
    assert info["entries-added"] == info["length"] == number(shop, "SELECT count(*) FROM customers") + marks


@contextmanager
def locked(dsn: str) -> Iterator[None]:
    """Hold the lock that a DROP or an ALTER TABLE would take."""
    with psycopg.connect(dsn) as connection:
        connection.execute("LOCK TABLE customers IN ACCESS EXCLUSIVE MODE")
        yield


@pytest.mark.parametrize(("options", "code"), [([], 0), (["--once"], 130)])
def test_a_reader_whose_chunk_waits_for_a_lock_ends_soon_and_leaves_nothing_behind(
    shop: Pipeline, options: list[str], code: int
) -> None:
    waiting = "SELECT count(*) FROM pg_stat_activity WHERE query LIKE 'COPY (%' AND wait_event_type = 'Lock'"
    assert shop.commands[0].terminate() == 0
    with psycopg.connect(shop.source_dsn) as connection:
        connection.execute("ANALYZE customers")  # else a start looks at its size, and waits too
    shop.run("cdc.cli", "snapshot", "--all")
    reader = shop.command("cdc.cli", "run", *options, log="locked-out")
    with locked(shop.source_dsn):
        for _ in range(3):
            reader.start()
            wait_until("the chunk to wait", lambda: number(shop, waiting) == 1)
            told = time.monotonic()
            assert reader.terminate() == code
            assert time.monotonic() - told < 5
            assert number(shop, waiting) == 0
        assert "ending without" not in reader.output
    shop.run("cdc.cli", "run", "--once")
    assert shop.snapshots_done()
