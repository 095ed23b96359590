"""Streams that are trimmed while sinks come, go and fall behind: every replica ends equal to the source."""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Callable, Iterator
from contextlib import closing as ended
from functools import partial
from importlib import resources
from pathlib import Path
from typing import Any

import psycopg
import pytest

from cdc.retention.streams import STEP_ENTRIES
from tests import checker, servers, workload
from tests.end_to_end.test_under_load import start
from tests.processes import Command, Pipeline, closing, wait_until
from tests.snare import Snare
from tests.workload import Workload

LIMIT = 16 * 1024 * 1024
CONFIGURATION = """
[events.row]
table = "rows"
columns = ["id", "name", "body"]
[sinks.copy]
type = "postgres"
dsn = "${COPY_DSN}"
[sinks.copy.tables]
row = "replica.rows"
[sinks.late]
type = "postgres"
dsn = "${LATE_DSN}"
[sinks.late.tables]
row = "replica.rows"
"""
Rows = list[tuple[Any, ...]]


class Shop(Pipeline):
    """One table, two sinks."""

    @property
    def key(self) -> str:
        """The stream's."""
        return self.keys.stream("row", 1)

    def execute(self, statement: str) -> None:
        """Run a statement at the source."""
        with psycopg.connect(self.source_dsn, autocommit=True) as connection:
            connection.execute(statement.encode())

    def grow(self, megabytes: int) -> None:
        """Change rows so that the stream gets about so many more bytes."""
        self.execute(f"UPDATE rows SET body = repeat(md5(random()::text), 320) WHERE id <= {megabytes * 100}")

    def rows(self, sink: str) -> Rows:
        """A replica, with what tells that a row was written again."""
        with psycopg.connect(self.environment[f"{sink.upper()}_DSN"]) as connection:
            if connection.execute("SELECT to_regclass('replica.rows')").fetchone() == (None,):
                return []
            return connection.execute("SELECT id, name, body, xmin::text FROM replica.rows ORDER BY id").fetchall()

    def is_equal(self, sink: str) -> bool:
        """Whether the sink's replica is what the source has."""
        with psycopg.connect(self.source_dsn) as connection:
            source = connection.execute("SELECT id, name, body FROM rows ORDER BY id").fetchall()
        return [row[:3] for row in self.rows(sink)] == source

    def wait_equal(self, *sinks: str) -> None:
        """Wait until these replicas are what the source has."""
        for sink in sinks:
            wait_until(f"the replica of {sink} to be equal", partial(self.is_equal, sink))

    def first(self) -> int:
        """The LSN of the first entry that is left."""
        found: Any = self.redis.xrange(self.key, count=1)
        return int(found[0][0].split(b"-")[0]) if found else 0

    def wait_trimmed(self, what: str = "the stream to be trimmed") -> None:
        """Wait until nothing but the last entry, or what is unread, is left of what is there now."""
        before = self.first()
        wait_until(what, lambda: self.first() > before)

    def status(self) -> dict[str, Any]:
        """`cdc status --json`."""
        found: dict[str, Any] = json.loads(self.run("cdc.cli", "status", "--json"))
        return found

    def problems(self) -> str:
        """What `cdc status` finds wrong."""
        return "\n".join(f"{each['part']} {each['what']}" for each in self.status()["problems"])


Make = Callable[[str], Shop]


@pytest.fixture
def make(
    postgres_server: servers.Postgres,
    source_dsn: str,
    target_dsn: str,
    redis_url: str,
    pipeline_name: str,
    tmp_path: Path,
) -> Iterator[Make]:
    """A shop with a thousand rows, by the transport's options; nothing runs."""
    with psycopg.connect(source_dsn) as connection:
        connection.execute("CREATE TABLE rows (id int PRIMARY KEY, name text, body text)")
        connection.execute("ALTER TABLE rows ALTER body SET STORAGE EXTERNAL, REPLICA IDENTITY FULL")
        connection.execute("INSERT INTO rows SELECT i, 'old' FROM generate_series(1, 4000) i")
    made: list[Shop] = []

    def shop(options: str) -> Shop:
        options = f"confirm_delay_seconds = 0.1\n{options}"
        made.append(
            Shop(pipeline_name, source_dsn, redis_url, tmp_path, CONFIGURATION, environment, transport_options=options)
        )
        return made[0]

    with servers.database(postgres_server, "late") as late_dsn:
        environment = {"COPY_DSN": target_dsn, "LATE_DSN": late_dsn}
        try:
            yield shop
        finally:
            for each in made:
                with closing(each):
                    continue


def no_restart(command: Command) -> bool:
    return command.running and "stopped" not in command.output


def test_a_sink_that_joins_a_trimmed_stream_ends_equal_and_the_other_writes_nothing_again(make: Make) -> None:
    shop = make('retain = "0s"')
    shop.reader()
    copy = shop.sink("copy")
    shop.wait_published()
    shop.wait_equal("copy")
    wait_until("the stream to be trimmed", lambda: shop.redis.xlen(shop.key) == 1)
    before = shop.rows("copy")
    late = shop.sink("late")
    shop.wait_equal("late")
    assert len(shop.rows("late")) == 4000
    wait_until("the other sink to have passed the snapshot", lambda: shop.redis.xlen(shop.key) == 1)
    assert shop.rows("copy") == before
    shop.execute("UPDATE rows SET name = 'new' WHERE id % 7 = 0; DELETE FROM rows WHERE id % 11 = 0")
    shop.wait_equal("copy", "late")
    assert no_restart(copy)
    assert no_restart(late)


def test_a_laggard_is_trimmed_past_and_takes_a_snapshot_when_it_returns(make: Make) -> None:
    shop = make(f'retain = "0s"\nmax_backlog_bytes = {LIMIT}\nlaggard = "resync"')
    reader, copy, late = shop.reader(), shop.sink("copy"), shop.sink("late")
    shop.wait_published()
    shop.wait_equal("copy", "late")
    assert late.terminate() == 0
    shop.execute("DELETE FROM rows WHERE id > 3900")
    for _ in range(3):
        shop.grow(megabytes=8)
    shop.wait_equal("copy")
    wait_until("the laggard to be trimmed past", lambda: shop.redis.hexists(shop.keys.passed, "late row"))
    wait_until("the stream to be small", lambda: shop.redis.xlen(shop.key) == 1)
    assert f"was more than transport.max_backlog_bytes behind in {shop.key}" in shop.problems()
    before = shop.rows("copy")
    late.start()
    shop.wait_equal("late")
    wait_until("nobody to be trimmed past", lambda: not shop.redis.exists(shop.keys.passed))
    wait_until("the other sink to have passed the snapshot", lambda: shop.redis.xlen(shop.key) == 1)
    assert shop.rows("copy") == before
    assert no_restart(copy)
    assert "begins at" in late.output
    assert "publishing waits" not in reader.output
    shop.execute("UPDATE rows SET name = 'after' WHERE id % 7 = 0")
    shop.wait_equal("copy", "late")


@pytest.mark.parametrize("who", ["a sink", "an external group"])
def test_a_laggard_is_waited_for_and_nothing_of_what_it_has_not_read_is_lost(make: Make, who: str) -> None:
    fate = "block" if who == "a sink" else "resync"  # a group cannot be told that it was trimmed past
    shop = make(f'retain = "0s"\nmax_backlog_bytes = {LIMIT}\nlaggard = "{fate}"')
    reader, copy, late = shop.reader(), shop.sink("copy"), shop.sink("late")
    shop.wait_published()
    shop.wait_equal("copy", "late")
    if who == "a sink":
        assert late.terminate() == 0
    else:
        shop.redis.xgroup_create(shop.key, "late_group", "$")
    name = "sink late" if who == "a sink" else "external group late_group"
    for _ in range(4):
        shop.grow(megabytes=8)
    wait_until("the reader to wait", lambda: "publishing waits for" in reader.output)
    for _ in range(2):
        shop.grow(megabytes=8)
    position = shop.flush_position()
    wait_until("it to tell so", lambda: f"paused: waits for {name}" in shop.problems())
    assert shop.published < position
    waiting_since = time.time()
    wait_until("the lag to be told", lambda: shop.status()["reader"]["lag_seconds"] > 3)  # the source is at rest
    assert shop.status()["reader"]["lag_seconds"] < time.time() - waiting_since + 60
    reader.terminate()
    assert "Traceback" not in reader.output
    reader.start()
    shop.grow(megabytes=1)
    wait_until("the reader to wait again", lambda: reader.output.count("publishing waits for") == 2)
    if who == "a sink":
        late.start()
    else:
        assert "forgot consumer group late_group" in shop.run("cdc.cli", "forget", "late_group", "--yes")
    shop.wait_published()
    shop.wait_equal("copy", "late")
    assert not shop.redis.xlen(shop.keys.requests)
    assert no_restart(copy)


def test_a_blocked_reader_ends_within_five_seconds(make: Make) -> None:
    shop = make(f'retain = "0s"\nmax_backlog_bytes = {LIMIT}')
    reader = shop.reader()
    shop.wait_published()
    shop.redis.xgroup_create(shop.key, "audit", "$")
    for _ in range(6):
        shop.grow(megabytes=8)
    wait_until("the reader to wait", lambda: "publishing waits for" in reader.output)
    began = time.monotonic()
    assert reader.terminate() == 0
    assert time.monotonic() - began < 5.5
    assert "ending without" not in reader.output


def test_unread_entries_of_a_plain_group_stay_and_it_is_named_until_it_is_forgotten(make: Make) -> None:
    shop = make('retain = "0s"')
    shop.reader()
    shop.sink("copy")
    shop.wait_published()
    shop.wait_equal("copy")
    shop.redis.xgroup_create(shop.key, "audit", "$")
    shop.execute("UPDATE rows SET name = 'unread' WHERE id <= 100")
    shop.wait_equal("copy")
    read: Any = shop.redis.xreadgroup("audit", "me", {shop.key: ">"}, count=10)
    shop.redis.xack(shop.key, "audit", *(entry_id for entry_id, _ in read[0][1][:5]))
    pending = int(read[0][1][5][0].split(b"-")[0])
    wait_until("what it has acknowledged to go", lambda: shop.redis.xlen(shop.key) == 95)
    assert shop.first() == pending
    assert "group audit is not one of our sinks and holds back 9" in shop.problems()
    (stream,) = shop.status()["streams"]
    assert (stream["held_by"], stream["held_back_by"]) == (["audit"], ["audit"])
    shop.redis.xreadgroup("audit", "me", {shop.key: ">"}, count=1)
    assert "consumer group audit is read from" in shop.run("cdc.cli", "forget", "audit", "--yes", expect=3)
    shop.redis.xgroup_delconsumer(shop.key, "audit", "me")
    shop.run("cdc.cli", "forget", "audit", "--yes")
    wait_until("the rest to go", lambda: shop.redis.xlen(shop.key) == 1)
    assert shop.problems() == ""


def test_a_sink_that_is_gone_for_good_is_forgotten(make: Make) -> None:
    shop = make('retain = "0s"')
    shop.reader()
    late = shop.sink("late")
    shop.wait_published()
    shop.wait_equal("late")
    assert "sink late is at work" in shop.run("cdc.cli", "forget", "late", "--yes", expect=3)
    assert late.terminate() == 0
    shop.execute("UPDATE rows SET name = 'unread' WHERE id <= 100")
    shop.wait_published()
    wait_until("all but what it has not read to go", lambda: shop.redis.xlen(shop.key) == 101)
    told = shop.run("cdc.cli", "forget", "lat", "--yes", expect=2)
    assert "there is no sink or group lat (there are: late)\n  remedy: Correct the command" in told
    assert f"forgot sink late: it held a place in {shop.key}" in shop.run("cdc.cli", "forget", "late", "--yes")
    wait_until("that to go too", lambda: shop.redis.xlen(shop.key) == 1)
    assert shop.status()["sinks"] == []


def test_entries_stay_for_as_long_as_they_are_to_be_retained(make: Make) -> None:
    shop = make('retain = "10s"')
    shop.reader()
    shop.sink("copy")
    shop.wait_published()
    length = shop.redis.xlen(shop.key)
    shop.wait_equal("copy")
    written = time.time()
    shop.execute("UPDATE rows SET name = 'young' WHERE id = 1")
    shop.execute("UPDATE rows SET name = 'young' WHERE id = 2")
    shop.wait_equal("copy")
    wait_until("the snapshot's rows to go", lambda: shop.redis.xlen(shop.key) <= 2)
    assert length > 4000
    wait_until("the older one to go", lambda: shop.redis.xlen(shop.key) == 1)
    assert time.time() - written > 10


def xtrim(shop: Shop) -> None:
    shop.redis.xtrim(shop.key, maxlen=3, approximate=False)


def xdel(shop: Shop) -> None:
    entries: Any = shop.redis.xrevrange(shop.key, count=5)
    shop.redis.xdel(shop.key, entries[2][0])


def empty(shop: Shop) -> None:
    shop.redis.xtrim(shop.key, maxlen=0)


@pytest.mark.parametrize("damage", [xtrim, xdel, empty])
def test_entries_that_were_removed_by_hand_are_noticed_by_every_sink_and_its_remedy_works(
    make: Make, damage: Callable[[Shop], None]
) -> None:
    shop = make('retain = "1h"')
    shop.reader()
    sinks = {name: shop.sink(name) for name in ("copy", "late")}
    shop.wait_published()
    shop.wait_equal(*sinks)
    for sink in sinks.values():
        assert sink.terminate() == 0
    before = {name: shop.rows(name) for name in sinks}
    shop.execute("UPDATE rows SET name = 'lost' WHERE id <= 20; DELETE FROM rows WHERE id = 30")
    shop.wait_published()
    damage(shop)
    for name, sink in sinks.items():
        sink.start()
        assert sink.wait() == 3
        assert shop.rows(name) == before[name]
        with psycopg.connect(shop.environment[f"{name.upper()}_DSN"]) as connection:
            remedy = sink.output[sink.output.rindex("DELETE FROM cdc.checkpoint") :].partition(";")[0]
            connection.execute(remedy.encode())
        sink.start()
        shop.wait_equal(name)


def test_a_stream_that_was_deleted_by_hand_is_noticed_by_every_sink(make: Make) -> None:
    shop = make('retain = "1h"')
    reader = shop.reader()
    sinks = {name: shop.sink(name) for name in ("copy", "late")}
    shop.wait_published()
    shop.wait_equal(*sinks)
    before = {name: shop.rows(name) for name in sinks}
    shop.redis.delete(shop.key)
    shop.execute("UPDATE rows SET name = 'lost' WHERE id <= 20")
    assert reader.wait() == 3
    for name, sink in sinks.items():
        wait_until(f"{name} to notice", lambda sink=sink: "Redis lost its tail" in sink.output)  # type: ignore[misc]
        assert shop.rows(name) == before[name]
    shop.run("cdc.cli", "snapshot", "--all")
    reader.start()
    shop.wait_equal(*sinks)


def test_a_reader_killed_between_two_steps_of_a_trim_goes_on_behind_the_first(make: Make, redis_url: str) -> None:
    shop = make('retain = "0s"')
    reader, copy, late = shop.reader(), shop.sink("copy"), shop.sink("late")
    shop.wait_published()
    shop.redis.xgroup_create(shop.key, "auditor", "0")
    for _ in range(6):
        shop.execute("UPDATE rows SET name = name || '!'")
    shop.wait_published()
    shop.wait_equal("copy", "late")
    reader.kill()
    shop.redis.xgroup_destroy(shop.key, "auditor")
    whole = shop.redis.xlen(shop.key)
    with ended(Snare(redis_url, trim_script(), lambda: shop.redis.xlen(shop.key) < whole)) as snare:
        shop.environment["REDIS_URL"] = snare.url
        killed = shop.command("cdc.cli", "run", log="killed")
        snare.on_bait = killed.kill
        killed.start()
        assert snare.sprung.wait(60)
    assert 1 < shop.redis.xlen(shop.key) <= whole - STEP_ENTRIES // 2
    late.kill()
    shop.execute("UPDATE rows SET name = 'new' WHERE id % 2 = 0; DELETE FROM rows WHERE id % 7 = 0")
    shop.environment["REDIS_URL"] = redis_url
    reader.start()
    late.start()
    shop.wait_published()
    shop.wait_equal("copy", "late")
    wait_until("the stream to be trimmed", lambda: shop.redis.xlen(shop.key) == 1)
    assert no_restart(copy)
    assert no_restart(late)


def trim_script() -> bytes:
    """How Redis names it."""
    return hashlib.sha1(resources.files("cdc.retention").joinpath("trim.lua").read_bytes()).hexdigest().encode()


def kill_while_trimming(shop: Pipeline, reader: Command, sink: Command, kills: int) -> None:
    """SIGKILL the reader so often, each time when a stream has just been trimmed; every third time the sink too."""
    for number in range(1, kills + 1):
        before = firsts(shop)
        wait_until("a stream to be trimmed", lambda before=before: firsts(shop) != before)  # type: ignore[misc]
        reader.kill()
        if number % 3 == 0:
            sink.kill()
            sink.start()
        reader.start()


def firsts(shop: Pipeline) -> list[object]:
    """The first entry of each stream."""
    return [shop.redis.xinfo_stream(shop.keys.stream(name, 1))["first-entry"] for name in sorted(shop.last_ids())]


@pytest.mark.parametrize(
    ("rows", "kills"), [pytest.param(2_500, 4, id="short"), pytest.param(50_000, 40, id="long", marks=pytest.mark.soak)]
)
@pytest.mark.timeout(900)
def test_nothing_is_lost_when_reader_and_sink_are_killed_while_streams_are_trimmed(
    source_dsn: str,
    target_dsn: str,
    redis_url: str,
    pipeline_name: str,
    tmp_path: Path,
    embedded_only: None,
    rows: int,
    kills: int,
) -> None:
    configuration, options = workload.EVENTS + workload.SINK, 'confirm_delay_seconds = 0.3\nretain = "0s"'
    environment = {"TARGET_DSN": target_dsn}
    shop = Pipeline(
        pipeline_name, source_dsn, redis_url, tmp_path, configuration, environment, transport_options=options
    )
    with closing(shop):
        reader, sink = start(shop, rows)
        with Workload(source_dsn, seed=31, keys=rows // 10, transactions_per_second=200).running():
            kill_while_trimming(shop, reader, sink, kills)
        shop.wait_published()
        shop.wait_applied(target_dsn, "copy")
        checker.assert_replica_equals_source(source_dsn, target_dsn)
        checker.assert_revs_never_fell(target_dsn)
        keys = [shop.keys.stream(name, 1) for name in shop.last_ids()]
        wait_until("the streams to be trimmed", lambda: all(shop.redis.xlen(key) == 1 for key in keys))
        assert "stopped" not in reader.output + sink.output
