"""The thread that trims beside the reader: what it knows, and whom it waits for."""

from __future__ import annotations

import json
import re
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from datetime import timedelta
from typing import Any, cast

import pytest
import redis

from cdc.config import EventConfig, ReaderConfig, SourceConfig
from cdc.demo.servers import ValkeyServer
from cdc.retention import keeper
from cdc.retention.judging import Judgement, StreamSeen, judge
from cdc.retention.keeper import Retention
from tests.processes import wait_until
from transforms.config import PipelineConfig, TransportConfig
from transforms.keys import Keys
from transforms.names import TableName
from transforms.position import LSN, Position
from transforms.pulse import Pulse
from transforms.secret import Secret

KEYS = Keys("shop")
KEY = KEYS.stream("customer", 1)
LIMIT = 16 << 20
MEGABYTE = 1 << 20
Start = Callable[..., Retention]


@pytest.fixture
def server() -> Iterator[ValkeyServer]:
    with ValkeyServer.start() as started:
        yield started


@pytest.fixture
def client(server: ValkeyServer) -> Iterator[redis.Redis]:
    with redis.Redis.from_url(server.url()) as made:
        made.hset(KEYS.meta, mapping={"incarnation": "one", "epoch": "1", "published": "FFFFFF/0"})
        confirm(made, "FFFFFF/0")
        yield made


@pytest.fixture
def start(server: ValkeyServer, monkeypatch: pytest.MonkeyPatch) -> Iterator[Start]:
    """Start a reader's retention with options of `[transport]`; it runs until the test ends."""
    monkeypatch.setattr(keeper, "ROUND_SECONDS", 0.05)
    monkeypatch.setattr(keeper, "LOOK_SECONDS", 0.2)
    with ExitStack() as stack:

        def started(
            *,
            url: str | None = None,
            is_ours: bool = True,
            sent_bytes: Callable[[], int] = lambda: 0,
            **options: Any,
        ) -> Retention:
            config = ReaderConfig(
                PipelineConfig(name="shop"),
                SourceConfig(dsn=Secret("dbname=shop"), slot="cdc_shop"),
                TransportConfig(url=Secret(url or server.url()), **options),
                (EventConfig(name="customer", table=TableName("public", "customers"), columns=("id",)),),
            )
            made = Retention(config, lambda: is_ours, sent_bytes, Pulse())
            stack.enter_context(made.running())
            return made

        yield started


def confirm(client: redis.Redis, position: str, life: str = "one@1") -> None:
    """As a reader tells it."""
    client.set(KEYS.reader_status, json.dumps({"confirmed": position, "confirmed_in": life}))


def add(client: redis.Redis, *lsns: int, size: int = 10, age_seconds: float = 0.0, key: str = KEY) -> None:
    pipe = client.pipeline(transaction=False)
    for lsn in lsns:
        ts = int((time.time() - age_seconds) * 1e6)
        pipe.xadd(key, {"state": b"x" * size, "ts": ts}, id=str(Position(LSN(lsn), 1_000_000)))
    pipe.execute()


def length(client: redis.Redis, key: str = KEY) -> int:
    return int(client.xlen(key))


def test_entries_go_when_they_are_read_and_old(client: redis.Redis, start: Start) -> None:
    add(client, *range(1, 101), age_seconds=3600)
    add(client, *range(101, 201))
    client.xgroup_create(KEY, "billing", "0")
    start(retain=timedelta(seconds=600))
    client.xgroup_setid(KEY, "billing", "60-1000000")
    wait_until("what is read to go", lambda: length(client) == 141)
    client.xgroup_setid(KEY, "billing", "200-1000000")
    wait_until("what is old to go", lambda: length(client) == 100)


def test_a_standby_trims_nothing(client: redis.Redis, start: Start) -> None:
    add(client, *range(1, 101))
    standby = start(retain=timedelta(0), is_ours=False)
    start(retain=timedelta(0), is_ours=True)
    wait_until("the reader to trim", lambda: length(client) == 1)
    assert not standby.trimmed


def test_while_the_source_is_away_what_is_read_goes_all_the_same(client: redis.Redis, start: Start) -> None:
    add(client, *range(1, 101))
    client.xgroup_create(KEY, "billing", "50-1000000")
    start(retain=timedelta(0))
    wait_until("what is read to go", lambda: length(client) == 51)
    client.set(KEYS.reader_status, json.dumps({"state": "reconnecting", "confirmed": None}))
    client.xgroup_setid(KEY, "billing", "90-1000000")
    wait_until("more to go", lambda: length(client) == 11)


def test_streams_of_earlier_epochs_are_trimmed_whatever_the_slot_says(client: redis.Redis, start: Start) -> None:
    old = KEY
    client.hset(KEYS.meta, "epoch", "2")
    confirm(client, "0/5", "one@2")
    add(client, *range(1, 101), key=old)
    add(client, *range(1, 101), key=KEYS.stream("customer", 2))
    start(retain=timedelta(0))
    wait_until("the old one to be trimmed", lambda: length(client, old) == 1)
    wait_until("the new one to keep what may come again", lambda: length(client, KEYS.stream("customer", 2)) == 96)


@pytest.mark.parametrize("change", [{"epoch": "2"}, {"incarnation": "two"}])
def test_what_was_confirmed_for_other_streams_is_not_taken_for_these(
    client: redis.Redis, start: Start, monkeypatch: pytest.MonkeyPatch, change: dict[str, str]
) -> None:
    lengths: list[int] = []

    def noting(stream: StreamSeen, *arguments: Any, **others: Any) -> Judgement:
        lengths.append(stream.length)
        return judge(stream, *arguments, **others)

    monkeypatch.setattr(keeper, "judge", noting)
    start(retain=timedelta(0))
    add(client, 1, 2)
    wait_until("what was confirmed to be known", lambda: length(client) == 1)
    client.hset(KEYS.meta, mapping=cast(Any, change))  # the source was restored, and sends again from an earlier place
    key = KEYS.stream("customer", int(change.get("epoch", "1")))
    client.delete(key)
    add(client, *range(1, 101), key=key)
    life = f"{change.get('incarnation', 'one')}@{change.get('epoch', '1')}"
    wait_until("it to be looked at twice", lambda: lengths.count(100) >= 2)
    assert length(client, key) == 100
    confirm(client, "0/32", life)
    wait_until("what was confirmed of these to go", lambda: length(client, key) == 51)


def test_who_is_far_behind_is_waited_for_until_he_has_read(client: redis.Redis, start: Start) -> None:
    retention = start(max_backlog_bytes=LIMIT)
    add(client, 1)
    client.xgroup_create(KEY, "audit", "$")
    add(client, *range(2, 7), size=MEGABYTE)
    wait_until("it to be looked at", lambda: retention.blocking.snapshot_waits_for("customer") is None)
    add(client, *range(7, 12), size=MEGABYTE)
    wait_until("a snapshot to wait", lambda: retention.blocking.snapshot_waits_for("customer"))
    told = str(retention.blocking.snapshot_waits_for("customer"))
    assert re.search(r"stream customer \([\d.]+ MB unread, transport.max_backlog_bytes is 16 MB\)", told)
    assert retention.blocking.snapshot_waits_for("order") is None
    assert not retention.blocking.blocked
    add(client, *range(12, 20), size=MEGABYTE)
    wait_until("publishing to wait", lambda: retention.blocking.blocked)
    hindrance = str(retention.blocking.blocked)
    assert "waits for external group audit in shop:customer (" in hindrance
    assert "`cdc forget audit`" in hindrance
    client.xgroup_setid(KEY, "audit", "19-1000000")
    began = time.monotonic()
    retention.blocking.wait(30)
    assert time.monotonic() - began < 20
    assert not retention.blocking.blocked
    wait_until("a snapshot to go on", lambda: retention.blocking.snapshot_waits_for("customer") is None)


def test_a_snapshot_waits_for_what_was_sent_since_the_readers_were_looked_at(client: redis.Redis, start: Start) -> None:
    sent = 0
    retention = start(max_backlog_bytes=LIMIT, sent_bytes=lambda: sent)
    add(client, 1, 2)
    client.xgroup_create(KEY, "audit", "1-1000000")
    wait_until("it to be looked at", lambda: retention.blocking._backlogs)
    retention._stop.set()  # nobody looks any more
    retention._thread.join()
    assert retention.blocking.snapshot_waits_for("customer") is None
    sent = 9 * MEGABYTE
    assert retention.blocking.snapshot_waits_for("customer")


def test_a_process_that_starts_knows_how_far_somebody_is_behind(client: redis.Redis, start: Start) -> None:
    add(client, *range(1, 11), size=MEGABYTE)
    client.xgroup_create(KEY, "audit", "$")
    first = start(max_backlog_bytes=LIMIT)
    wait_until("a sample to be stored", lambda: client.hexists(KEYS.trails, KEY))
    first._stop.set()
    first._thread.join()
    add(client, *range(11, 31), size=MEGABYTE)  # retained: the first entry tells nothing of who is where
    second = start(max_backlog_bytes=LIMIT)
    wait_until("publishing to wait", lambda: second.blocking.blocked)
    assert "external group audit" in str(second.blocking.blocked)


def test_when_memory_is_short_what_is_read_goes_though_it_is_young(client: redis.Redis, start: Start) -> None:
    add(client, *range(1, 21), size=MEGABYTE)
    client.xgroup_create(KEY, "audit", "15-1000000")
    retention = start()
    wait_until("it to be looked at", lambda: retention._watched._watched)
    assert length(client) == 20
    client.config_set("maxmemory", client.info("memory")["used_memory"] + MEGABYTE)
    wait_until("what is read to go", lambda: length(client) == 6)
    client.config_set("maxmemory", client.info("memory")["used_memory"] + MEGABYTE)
    wait_until("a snapshot to wait", lambda: retention.blocking.snapshot_waits_for("customer"))
    assert "Redis is short of memory" in str(retention.blocking.snapshot_waits_for("customer"))
    client.config_set("maxmemory", 1)  # nothing can be stored any more
    client.xgroup_setid(KEY, "audit", "20-1000000")
    wait_until("all but the last to go", lambda: length(client) == 1)


def test_a_user_who_may_not_trim_is_told_and_trimming_goes_on_when_he_may(
    server: ValkeyServer, client: redis.Redis, start: Start
) -> None:
    add(client, *range(1, 101))
    client.acl_setuser("reader", enabled=True, nopass=True, keys=["*"], commands=["+@all", "-xtrim"])
    retention = start(url=server.url().replace("redis://", "redis://reader:x@"), retain=timedelta(0))
    wait_until("the refusal", lambda: retention.failure)
    assert "xtrim" in str(retention.failure)
    assert "ACL" in str(retention.failure)
    client.acl_setuser("reader", enabled=True, nopass=True, keys=["*"], commands=["+@all"], reset=False)
    wait_until("the stream to be trimmed", lambda: length(client) == 1)
    wait_until("the refusal to be over", lambda: retention.failure is None)


def test_trimming_survives_a_flushed_script_cache_and_lost_connections(client: redis.Redis, start: Start) -> None:
    add(client, *range(1, 101))
    retention = start(retain=timedelta(0))
    wait_until("the stream to be trimmed", lambda: length(client) == 1)
    client.script_flush()
    add(client, *range(101, 201))
    wait_until("the stream to be trimmed again", lambda: length(client) == 1)
    client.client_kill_filter(_type="normal", skipme=True)
    add(client, *range(201, 301))
    wait_until("the stream to be trimmed once more", lambda: length(client) == 1)
    assert retention.failure is None


def test_a_mistake_of_ours_is_told_and_does_not_end_trimming(
    client: redis.Redis, start: Start, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def broken(*_: object) -> None:
        raise ZeroDivisionError

    add(client, *range(1, 101))
    with monkeypatch.context() as patch:
        patch.setattr(keeper, "judge", lambda *_, **__: broken())
        retention = start(retain=timedelta(0))
        wait_until("it to be told", lambda: retention.failure)
    assert "ZeroDivisionError in retention" in str(retention.failure)
    assert "Traceback" in caplog.text
    wait_until("the stream to be trimmed", lambda: length(client) == 1)
    wait_until("it to be over", lambda: retention.failure is None)
