"""Redis comes back without the end of what it was given: the slot has it, or a person is told and a snapshot heals."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import redis

from cdc.demo.servers import ValkeyServer
from sinks.errors import StreamTailLost
from sinks.stream import StreamEnds, StreamReader
from tests.faults.proxy import Proxy
from tests.faults.redis_pipeline import RedisPipeline, redis_pipeline
from tests.processes import wait_until
from transforms.keys import Keys
from transforms.position import Position

Make = Callable[[str], RedisPipeline]
AT_ONCE = {"repl-diskless-sync-delay": "0"}


@pytest.fixture
def server() -> Iterator[ValkeyServer]:
    with ValkeyServer.start(settings=AT_ONCE) as started:
        yield started


@pytest.fixture
def make(server: ValkeyServer, source_dsn: str, target_dsn: str, pipeline_name: str, tmp_path: Path) -> Iterator[Make]:
    """A running pipeline, by the options of its transport."""
    made = []

    def start(options: str) -> RedisPipeline:
        context = redis_pipeline(server, source_dsn, target_dsn, pipeline_name, tmp_path, options)
        made.append(context)
        shop = context.__enter__()
        shop.start()
        return shop

    yield start
    for context in made:
        context.__exit__(None, None, None)


class Replica:
    """A replica of a server, which can be made to lag and to take over.

    It takes over under the same address and behind the same connections: the server takes on what the replica has.
    """

    def __init__(self, primary: redis.Redis, other: ValkeyServer, link: Proxy) -> None:
        self._primary, self._other, self._link = primary, other, link
        self._replica = redis.Redis.from_url(other.url())

    def follow(self) -> None:
        self._replica.replicaof("127.0.0.1", str(self._link.port))
        wait_until("the replica", lambda: self._replica.info("replication")["master_link_status"] == "up")
        wait_until("its offset", lambda: _offset(self._replica, "slave") == _offset(self._primary, "master"))

    def lag(self) -> None:
        """It hears nothing more."""
        self._link.black_hole()

    def take_over(self) -> None:
        self._link.close()
        self._replica.replicaof("NO", "ONE")
        self._primary.replicaof("127.0.0.1", str(self._other.port))
        wait_until("the data", lambda: self._primary.info("replication").get("master_link_status") == "up")
        self._primary.replicaof("NO", "ONE")
        self._replica.close()


@contextmanager
def following(server: ValkeyServer) -> Iterator[Replica]:
    """A replica that has all that the server has."""
    with ValkeyServer.start(settings=AT_ONCE) as other, redis.Redis.from_url(server.url()) as primary:
        replica = Replica(primary, other, Proxy("127.0.0.1", server.port))
        replica.follow()
        yield replica


def _offset(client: redis.Redis, role: str) -> int:
    told = client.info("replication")
    return int(told["slave_repl_offset" if role == "slave" else "master_repl_offset"])


def change_rows(shop: RedisPipeline) -> None:
    """Into one stream only."""
    shop.execute("DELETE FROM rows WHERE id <= 5; UPDATE rows SET name = 'new' WHERE id > 15")


def change_others(shop: RedisPipeline) -> None:
    """Into the other one."""
    shop.execute("UPDATE others SET name = 'later' WHERE id = 1")


def test_a_failover_behind_a_connection_that_lives_on_is_noticed_though_nothing_is_written(
    server: ValkeyServer, make: Make
) -> None:
    shop = make("confirm_delay_seconds = 3600")
    shop.wait_published()
    with following(server) as replica:
        replica.lag()
        change_rows(shop)
        shop.wait_until_equal()
        lost = shop.last_ids()
        replica.take_over()
        wait_until("the session to end", lambda: "interrupted: Redis" in shop.reading.output)
        wait_until("all to be there again", lambda: shop.last_ids() == lost)
    change_others(shop)
    shop.wait_until_equal()
    assert "run id" in shop.reading.output or "replication id" in shop.reading.output


def test_what_a_failover_lost_beyond_the_slot_stops_the_reader_and_a_snapshot_heals(
    server: ValkeyServer, make: Make
) -> None:
    shop = make("confirm_delay_seconds = 0")
    shop.wait_published()
    with following(server) as replica:
        replica.lag()
        change_rows(shop)
        shop.wait_until_equal()
        position = shop.flush_position()
        wait_until("the slot to have forgotten", lambda: shop.confirmed() >= position)
        replica.take_over()
        assert shop.reading.wait() == 3
    assert "the slot is confirmed up to" in shop.reading.output
    assert "`cdc snapshot --all`" in shop.reading.output
    shop.execute("DELETE FROM rows WHERE id = 6; DELETE FROM others WHERE id > 10")
    shop.run("cdc.cli", "snapshot", "--all")
    shop.reading = shop.reader()
    shop.wait_until_equal()


def test_with_replicas_nothing_is_forgotten_that_only_one_server_has(server: ValkeyServer, make: Make) -> None:
    shop = make('durability = "replicas:1"')
    wait_until("it to be told", lambda: shop.state().get("unconfirmed"))
    assert shop.state()["unconfirmed"]["reason"].startswith("0 of the 1 replicas")
    with following(server) as replica:
        wait_until("the slot to follow the replica", lambda: shop.confirmed() >= shop.published)
        wait_until("it to be told", lambda: not shop.state()["unconfirmed"])
        replica.lag()
        confirmed = shop.confirmed()
        change_rows(shop)
        shop.wait_until_equal()
        published = shop.flush_position()
        wait_until("it to be told", lambda: shop.state()["unconfirmed"])
        assert "confirms nothing to the source: 0 of the 1" in shop.run("cdc.cli", "status", expect=0)
        assert shop.state()["state"] == "streaming"
        assert confirmed <= shop.confirmed() < published
        lost = shop.last_ids()
        replica.take_over()
        wait_until("all to be there again", lambda: shop.last_ids() == lost)
    change_others(shop)
    shop.wait_until_equal()


def test_a_stream_that_alone_lost_its_end_is_filled_from_the_slot(server: ValkeyServer, make: Make) -> None:
    shop = make("confirm_delay_seconds = 3600")
    shop.wait_published()
    assert shop.reading.terminate() == 0
    key, before = shop.keys.stream("row", 1), shop.last_ids()["row"]
    shop.reading = shop.reader()
    change_rows(shop)
    shop.wait_until_equal()
    shop.wait_published()
    lost = shop.last_ids()["row"]
    shop.reading.kill()
    kept: Any = shop.redis.xrange(key, "-", str(before))
    shop.redis.delete(key)  # only so can a stream's last id go back
    for entry_id, fields in kept:
        shop.redis.xadd(key, fields, id=entry_id)
    assert shop.last_ids()["row"] == before
    shop.reading = shop.reader()
    shop.says(shop.reading, "its stream lost entries in Redis")
    wait_until("the stream to have it again", lambda: shop.last_ids()["row"] >= lost)
    change_others(shop)
    shop.wait_until_equal()


def test_a_sink_that_applied_a_snapshot_which_redis_then_lost_takes_another_one(
    source_dsn: str, target_dsn: str, pipeline_name: str, tmp_path: Path
) -> None:
    with (
        ValkeyServer.start(settings={"appendonly": "yes", "auto-aof-rewrite-percentage": "0"}) as server,
        redis_pipeline(server, source_dsn, target_dsn, pipeline_name, tmp_path, "confirm_delay_seconds = 3600") as shop,
    ):
        shop.start()
        shop.wait_published()
        (file,) = (server.directory / "appendonlydir").glob("*.incr.aof")
        kept, before = file.stat().st_size, shop.last_ids()["row"]
        shop.run("cdc.cli", "snapshot", "row", "--wait")
        shop.wait_applied(target_dsn, "copy")
        applied = shop.last_ids()["row"]
        server.kill()
        with file.open("r+b") as written:
            written.truncate(kept)
        server.start_again()
        shop.says(shop.applying, "Redis lost its tail")
        assert before <= shop.last_ids()["row"] < applied
        change_rows(shop)
        shop.wait_until_equal()
        shop.says(shop.applying, "when Redis lost the end of the stream; a snapshot brings their rows")
        change_rows(shop)
        shop.wait_until_equal()


def test_a_tail_that_comes_back_between_two_looks_of_a_sink_is_no_hole(
    server: ValkeyServer, pipeline_name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    client, keys = redis.Redis.from_url(server.url()), Keys(pipeline_name)
    client.hset(keys.meta, mapping={"incarnation": "a", "epoch": "1", "published": "0/1"})
    client.xadd(keys.stream("row", 1), {"op": "upsert"}, id="10-1000000")
    reader, checkpoint = StreamReader(client, keys, "copy"), Position.parse("20-1000000")
    meta = reader.meta()
    assert meta is not None
    look = reader.ends

    def ends(stream: str) -> StreamEnds:
        for lsn in (20, 30):
            client.xadd(keys.stream("row", 1), {"op": "upsert"}, id=f"{lsn}-1000000")
        return look(stream)

    with monkeypatch.context() as patch:
        patch.setattr(reader, "ends", ends)
        with pytest.raises(StreamTailLost, match="again"):
            reader.read("row", meta, checkpoint, 10)
    assert [entry_id for entry_id, _ in reader.read("row", meta, checkpoint, 10).entries] == [b"30-1000000"]
