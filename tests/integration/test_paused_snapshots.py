"""Snapshots that wait, because they are paused or because their stream is full: changes flow on."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import cast

import psycopg
import pytest

from cdc.snapshot.run import Run
from tests.processes import Pipeline, closing, wait_until

ROWS = 30_000
CONFIGURATION = """
[events.customer]
table = "customers"
columns = ["id", "name"]
"""


@pytest.fixture
def shop(source_dsn: str, redis_url: str, pipeline_name: str, tmp_path: Path) -> Iterator[Pipeline]:
    with psycopg.connect(source_dsn) as connection:
        connection.execute("CREATE TABLE customers (id int PRIMARY KEY, name text)")
        connection.execute(f"INSERT INTO customers SELECT n, 'old' FROM generate_series(1, {ROWS}) AS n")
    with closing(Pipeline(pipeline_name, source_dsn, redis_url, tmp_path, CONFIGURATION)) as made:
        yield made


def runs(shop: Pipeline) -> list[Run]:
    stored = shop.redis.hgetall(shop.keys.runs)
    return [Run.parse(text) for text in stored.values()]


def left(shop: Pipeline) -> list[Run]:
    return [run for run in runs(shop) if run.state != "done"]


def runs_begun(shop: Pipeline) -> list[str | None]:
    """For whom each run was that has begun, in the order of the stream."""
    entries = cast(list[tuple[bytes, dict[bytes, bytes]]], shop.redis.xrange(shop.keys.stream("customer", 1)))
    marks = [fields for _, fields in entries if fields.get(b"mark") == b"run-begin"]
    return [fields[b"to"].decode() if b"to" in fields else None for fields in marks]


def status(shop: Pipeline) -> dict[str, object]:
    found: dict[str, object] = json.loads(shop.run("cdc.cli", "status", "--json"))["reader"]
    return found


def change(shop: Pipeline, name: str) -> None:
    with psycopg.connect(shop.source_dsn, autocommit=True) as connection:
        connection.execute("UPDATE customers SET name = %s WHERE id = 7", (name,))


def published(shop: Pipeline, name: str) -> bool:
    newest = shop.redis.xrevrange(shop.keys.stream("customer", 1), count=5)
    return any(name.encode() in fields.get(b"state", b"") for _, fields in newest)  # type: ignore[union-attr]


@pytest.mark.any_version
def test_snapshots_that_are_paused_wait_while_changes_flow(shop: Pipeline) -> None:
    assert "until `cdc snapshot --resume`" in shop.run("cdc.cli", "snapshot", "--pause")
    shop.reader()
    wait_until("the run to be planned", lambda: runs(shop))
    change(shop, "Ada")
    wait_until("the change", lambda: published(shop, "Ada"))
    assert [(run.state, run.rows) for run in runs(shop)] == [("pending", 0)]
    wait_until("the status", lambda: status(shop)["state"] == "paused")
    assert status(shop)["remedy"] == "Run `cdc snapshot --resume`."
    assert "snapshots wait, changes flow on" in shop.run("cdc.cli", "status")
    shop.run("cdc.cli", "snapshot", "--resume")
    wait_until("the snapshot", shop.snapshots_done)
    assert [run.rows for run in runs(shop)] == [ROWS]
    wait_until("the status", lambda: status(shop)["state"] == "streaming")
    assert status(shop)["remedy"] is None


def test_a_pause_outlasts_the_reader_and_a_run_goes_on_where_it_was(shop: Pipeline) -> None:
    reader = shop.reader()
    wait_until("the first chunks", lambda: any(run.rows for run in runs(shop)))
    shop.run("cdc.cli", "snapshot", "--pause")
    wait_until("the status", lambda: status(shop)["state"] in ("paused", "streaming"))
    assert reader.terminate() == 0
    shop.run("cdc.cli", "snapshot", "--all")
    shop.run("cdc.cli", "snapshot", "--resume")
    shop.run("cdc.cli", "snapshot", "--pause")
    reader.start()
    wait_until("the status", lambda: status(shop)["state"] == "paused")
    before = {run.id: run.rows for run in runs(shop)}
    shop.run("cdc.cli", "snapshot", "--resume")
    wait_until("the snapshots", shop.snapshots_done)
    assert all(run.rows >= before.get(run.id, 0) for run in runs(shop))
    assert {run.rows for run in runs(shop)} == {ROWS}


def test_whoever_asks_before_a_run_begins_is_served_by_it_and_who_asks_later_by_another(shop: Pipeline) -> None:
    shop.reader()
    wait_until("the first snapshot", shop.snapshots_done)
    shop.run("cdc.cli", "snapshot", "--pause")
    waiters = [shop.command("cdc.cli", "snapshot", "customer", "--wait", log=f"waiter-{n}") for n in range(3)]
    for waiter in waiters:
        waiter.start()
    wait_until("the requests", lambda: all("asked for" in waiter.output for waiter in waiters))
    for _ in range(2):  # which stay two: each sink knows its own by its id
        shop.run("cdc.cli", "snapshot", "customer", "--sink", "billing")
    wait_until("the requests to be taken", lambda: not shop.redis.xlen(shop.keys.requests))
    wait_until("one run for all", lambda: sorted(str(run.to) for run in left(shop)) == ["None", "billing", "billing"])
    shop.run("cdc.cli", "snapshot", "--resume")
    wait_until("a run to have begun", lambda: any(run.state == "running" for run in runs(shop)))
    late = shop.run("cdc.cli", "snapshot", "customer", "--wait")
    assert [waiter.wait() for waiter in waiters] == [0, 0, 0]
    assert {waiter.output.splitlines()[-1] for waiter in waiters} == {f"published customer.v1: {ROWS:,} rows"}
    assert f"published customer.v1: {ROWS:,} rows" in late
    assert runs_begun(shop) == [None, None, "billing", "billing", None]


def test_who_waits_for_an_event_that_the_reader_does_not_know_is_told(shop: Pipeline) -> None:
    shop.reader()
    wait_until("the first snapshot", shop.snapshots_done)
    shop.path.write_text(shop.path.read_text() + '[events.client]\ntable = "customers"\ncolumns = ["id"]\n')
    told = shop.run("cdc.cli", "snapshot", "client", "--wait", expect=3)
    assert "the reader that took the request does not publish client.v1" in told
    assert "Start the reader again" in told


def test_a_reader_that_ends_after_the_snapshots_refuses_to_wait_for_ever(shop: Pipeline) -> None:
    shop.run("cdc.cli", "snapshot", "--pause")
    told = shop.run("cdc.cli", "run", "--once", expect=3)
    assert "snapshots are paused" in told
    assert "cdc snapshot --resume" in told
    shop.run("cdc.cli", "snapshot", "--resume")
    shop.run("cdc.cli", "run", "--once")


@pytest.mark.parametrize("options", [["--pause", "--all"], ["--resume", "customer"], ["--pause", "--resume"]])
def test_pause_and_resume_stand_alone(shop: Pipeline, options: list[str]) -> None:
    shop.run("cdc.cli", "snapshot", *options, expect=2)


def test_a_snapshot_leaves_room_in_a_stream_that_nobody_reads(
    source_dsn: str, redis_url: str, pipeline_name: str, tmp_path: Path
) -> None:
    with psycopg.connect(source_dsn) as connection:
        connection.execute("CREATE TABLE customers (id int PRIMARY KEY, name text)")
        connection.execute("INSERT INTO customers SELECT n, repeat('x', 200) FROM generate_series(1, 200000) AS n")
    limited = "max_backlog_bytes = 64_000_000\nconfirm_delay_seconds = 0.3"
    with closing(
        Pipeline(pipeline_name, source_dsn, redis_url, tmp_path, CONFIGURATION, transport_options=limited)
    ) as shop:
        stream = shop.keys.stream("customer", 1)
        shop.redis.xgroup_create(stream, "audit", "0", mkstream=True)
        shop.reader()
        wait_until("the snapshot to wait", lambda: "the readers of stream customer" in str(status(shop)["waiting_for"]))
        change(shop, "Ada")
        end = shop.flush_position()
        wait_until("all before to be stored", lambda: shop.published >= end)
        assert published(shop, "Ada")
        rows = [run.rows for run in runs(shop)]
        change(shop, "Eve")
        wait_until("the change", lambda: published(shop, "Eve"))
        assert [run.rows for run in runs(shop)] == rows
        assert 0 < rows[0] < 200_000
        shop.redis.xgroup_setid(stream, "audit", "$")
        wait_until("more rows", lambda: runs(shop)[0].rows > rows[0])
        shop.redis.xgroup_destroy(stream, "audit")
        wait_until("the snapshot", shop.snapshots_done)
        assert [run.rows for run in runs(shop)] == [200_000]
