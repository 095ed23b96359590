"""`cdc status` against real servers."""

from __future__ import annotations

import json
import os
import pty
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import psycopg
import pytest

from tests import servers
from tests.processes import Pipeline, closing, wait_until

EVENTS = """
[events.customer]
table = "customers"
columns = ["id", "name"]
"""


@contextmanager
def a_shop(source_dsn: str, redis_url: str, name: str, directory: Path) -> Iterator[Pipeline]:
    """A pipeline that has run once."""
    with psycopg.connect(source_dsn) as connection:
        connection.execute("CREATE TABLE customers (id int PRIMARY KEY, name text)")
    with closing(Pipeline(name, source_dsn, redis_url, directory, EVENTS)) as shop:
        shop.run("cdc.cli", "run", "--once")
        yield shop


@contextmanager
def steady_writes(dsn: str, bytes_per_second: int, every_seconds: float = 0.05) -> Iterator[None]:
    """Something that writes to the log all the time, in bursts that are so far apart."""
    stop, burst_bytes = threading.Event(), int(bytes_per_second * every_seconds)

    def write() -> None:
        with psycopg.connect(dsn, autocommit=True) as connection:
            while not stop.wait(every_seconds):
                connection.execute("SELECT pg_logical_emit_message(false, 'load', repeat('x', %s))", (burst_bytes,))

    thread = threading.Thread(target=write)
    thread.start()
    try:
        yield
    finally:
        stop.set()
        thread.join()


def limit_wal(dsn: str) -> None:
    settings = {"max_slot_wal_keep_size": "32MB", "max_wal_size": "64MB", "min_wal_size": "32MB"}
    with psycopg.connect(dsn, autocommit=True) as connection:
        for name, value in settings.items():
            connection.execute(f"ALTER SYSTEM SET {name} = '{value}'".encode())
        connection.execute("SELECT pg_reload_conf()")


def retained_and_safe_bytes(dsn: str) -> tuple[int, int]:
    """What the slot keeps, and what may be written until it is lost."""
    with psycopg.connect(dsn, autocommit=True) as connection:
        row = connection.execute(
            "SELECT coalesce(pg_current_wal_insert_lsn() - restart_lsn, 0), coalesce(safe_wal_size, 0)"
            " FROM pg_replication_slots"
        ).fetchone()
    assert row is not None
    return int(row[0]), int(row[1])


@pytest.mark.any_version
def test_the_time_that_a_slot_has_left_is_true_within_a_fifth_for_as_long_as_the_rate_is_what_it_was(
    redis_url: str, pipeline_name: str, tmp_path: Path
) -> None:
    """In bytes, for how fast they are written on a busy machine changes by the second."""
    with servers.postgres_server() as server, servers.database(server, "source") as dsn:
        limit_wal(dsn)
        with a_shop(dsn, redis_url, pipeline_name, tmp_path) as shop:
            with steady_writes(dsn, 3_000_000):
                slot = json.loads(shop.run("cdc.cli", "status", "--json"))["source"]["slot"]
                enough = slot["retained_bytes"] + (4 << 20)
                wait_until("more to be written", lambda: retained_and_safe_bytes(dsn)[0] > enough)
            assert 0 < slot["wal_bytes_per_second"] < 4_000_000
            told = slot["seconds_left"] * slot["wal_bytes_per_second"]
            retained, safe = retained_and_safe_bytes(dsn)
            assert told == pytest.approx(retained - slot["retained_bytes"] + safe, rel=0.2)
            with psycopg.connect(dsn, autocommit=True) as connection:
                connection.execute("SELECT pg_logical_emit_message(false, 'load', repeat('x', %s))", (safe,))
                assert retained_and_safe_bytes(dsn)[1] <= 0


def test_the_time_that_a_slot_has_left_is_true_within_a_fifth(
    redis_url: str, pipeline_name: str, tmp_path: Path
) -> None:
    with servers.postgres_server() as server, servers.database(server, "source") as dsn:
        limit_wal(dsn)
        with a_shop(dsn, redis_url, pipeline_name, tmp_path) as shop, steady_writes(dsn, 3_000_000):
            slot = status(shop)["source"]["slot"]
            asked = time.monotonic()
            assert 4 < slot["seconds_left"] < 30
            wait_until("nothing to be left", lambda: retained_and_safe_bytes(dsn)[1] <= 0, 60)
            truth = time.monotonic() - asked
    assert slot["seconds_left"] == pytest.approx(truth, rel=0.2)


@pytest.mark.any_version
def test_bursts_are_told_as_the_mean_that_they_come_to(
    source_dsn: str, redis_url: str, pipeline_name: str, tmp_path: Path
) -> None:
    with (
        a_shop(source_dsn, redis_url, pipeline_name, tmp_path) as shop,
        steady_writes(source_dsn, 500_000, every_seconds=1.2),
    ):
        began, before = time.monotonic(), shop.flush_position()
        reader = shop.reader()
        wait_until("the reader to have watched", lambda: watched_seconds(shop) > 20)
        told = []
        for _ in range(4):  # with one burst or two between them, or with none
            told.append(status(shop)["source"]["slot"]["wal_bytes_per_second"])
            time.sleep(0.7)
        assert reader.terminate() == 0
        told.append(status(shop)["source"]["slot"]["wal_bytes_per_second"])
        truth = (shop.flush_position() - before) / (time.monotonic() - began)
    assert told == pytest.approx([truth] * 5, rel=0.5), "a second alone has nothing, or twice as much"


def status(shop: Pipeline) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(shop.run("cdc.cli", "status", "--json"))
    return found


def watched_seconds(shop: Pipeline) -> float:
    reader = json.loads(shop.redis.get(shop.keys.reader_status) or b"{}")
    return float((reader.get("growth") or {}).get("watched_seconds", 0.0))


SINK = """
[sinks.billing]
type = "postgres"
dsn = "${BILLING_DSN}"
[sinks.billing.tables]
customer = "customers_replica"
"""


@pytest.mark.any_version
def test_the_lag_of_a_sink_that_is_gone_is_the_age_of_what_waits_for_it(
    source_dsn: str, redis_url: str, pipeline_name: str, tmp_path: Path
) -> None:
    with a_shop(source_dsn, redis_url, pipeline_name, tmp_path) as shop:
        shop.path.write_text(shop.path.read_text() + SINK)
        shop.environment["BILLING_DSN"] = source_dsn
        shop.run("sinks.cli", "run", "billing", "--once")
        shop.run("cdc.cli", "run", "--once")  # the log has grown, and nothing in it is for the sink

        def lag() -> tuple[int, float]:
            [sink] = status(shop)["sinks"]
            return sink["lag_bytes"], sink["lag_seconds"]

        assert lag() == (0, 0.0)
        with psycopg.connect(source_dsn, autocommit=True) as connection:
            connection.execute("INSERT INTO customers VALUES (1, 'Ada')")
        committed = time.time()
        shop.run("cdc.cli", "run", "--once")
        waited = time.time() - committed
        lag_bytes, lag_seconds = lag()
        assert lag_bytes > 0
        assert waited - 1 < lag_seconds < time.time() - committed + 1
        shop.run("sinks.cli", "run", "billing", "--once")
        assert lag() == (0, 0.0)


def test_watch_shows_it_live_until_it_is_interrupted(
    source_dsn: str, redis_url: str, pipeline_name: str, tmp_path: Path
) -> None:
    with a_shop(source_dsn, redis_url, pipeline_name, tmp_path) as shop:
        screen, terminal = pty.openpty()
        command = [sys.executable, "-m", "cdc.cli", "-c", str(shop.path), "status", "--watch"]
        environment = os.environ | shop.environment | {"TERM": "xterm", "COLUMNS": "80", "LINES": "40"}
        watching = subprocess.Popen(command, stdout=terminal, env=environment)
        os.close(terminal)
        shown = b""
        while shown.count(b"was stopped") < 2:
            shown += os.read(screen, 65536)
        watching.send_signal(signal.SIGINT)
        with suppress(OSError):  # the other end is closed
            while os.read(screen, 65536):
                continue
        assert watching.wait(60) == 0
        os.close(screen)
    assert f"slot cdc_{pipeline_name}".encode() in shown


def test_watch_does_not_go_with_json(source_dsn: str, redis_url: str, pipeline_name: str, tmp_path: Path) -> None:
    with a_shop(source_dsn, redis_url, pipeline_name, tmp_path) as shop:
        assert "does not go with --json" in shop.run("cdc.cli", "status", "--watch", "--json", expect=2)
