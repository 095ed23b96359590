"""Redis refuses, forgets or is spoilt under a running reader and sink: it passes by itself, or both say what to do."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, suppress
from pathlib import Path
from typing import Any

import pytest
import redis

from cdc.demo.servers import ValkeyServer
from tests.faults.redis_pipeline import RedisPipeline, redis_pipeline
from tests.processes import wait_until

SETTINGS = {
    "appendonly": "yes",
    "appendfsync": "always",
    "aof-use-rdb-preamble": "no",
    "key-load-delay": "500",
    "dbfilename": "dump",
    "busy-reply-threshold": "50",
}
JUNK = 12_000
"""Keys, microseconds for each: loading lasts longer than a reader's longest pause between two tries."""
PASSWORD = "hunter2-planted"


@pytest.fixture
def server() -> Iterator[ValkeyServer]:
    with ValkeyServer.start(settings=SETTINGS) as started:
        yield started


@pytest.fixture
def shop(
    server: ValkeyServer, source_dsn: str, target_dsn: str, pipeline_name: str, tmp_path: Path
) -> Iterator[RedisPipeline]:
    options = "confirm_delay_seconds = 0.3"
    with redis_pipeline(server, source_dsn, target_dsn, pipeline_name, tmp_path, options) as made:
        made.start()
        yield made


# --- what passes by itself -------------------------------------------------------------------------------------------


@contextmanager
def out_of_memory(shop: RedisPipeline, server: ValkeyServer) -> Iterator[str]:
    shop.redis.config_set("maxmemory", 1)
    yield "out of memory"
    shop.redis.config_set("maxmemory", 0)


@contextmanager
def read_only(shop: RedisPipeline, server: ValkeyServer) -> Iterator[str]:
    shop.redis.replicaof("127.0.0.1", 1)
    yield "Redis refuses for now"
    shop.redis.replicaof("NO", "ONE")


@contextmanager
def without_replicas(shop: RedisPipeline, server: ValkeyServer) -> Iterator[str]:
    shop.redis.config_set("min-replicas-to-write", 1)
    yield "NOREPLICAS"
    shop.redis.config_set("min-replicas-to-write", 0)


@contextmanager
def scripts_lost(shop: RedisPipeline, server: ValkeyServer) -> Iterator[str]:
    shop.redis.script_flush()
    yield "script cache"


@contextmanager
def dump_fails(shop: RedisPipeline, server: ValkeyServer) -> Iterator[str]:
    in_its_place = server.directory / "dump"
    (in_its_place / "x").mkdir(parents=True)
    shop.redis.config_set("save", "3600 1")
    shop.redis.bgsave()
    wait_until("the dump to fail", lambda: shop.redis.info("persistence")["rdb_last_bgsave_status"] == "err")
    yield "MISCONF"
    (in_its_place / "x").rmdir()
    in_its_place.rmdir()
    shop.redis.bgsave()
    wait_until("a dump", lambda: shop.redis.info("persistence")["rdb_last_bgsave_status"] == "ok")
    shop.redis.config_set("save", "")


@contextmanager
def disk_full(shop: RedisPipeline, server: ValkeyServer) -> Iterator[str]:
    """Its append-only file cannot grow. (With appendfsync always Redis ends then: it is killed in test_redis_kills.)"""
    shop.redis.config_set("appendfsync", "everysec")
    following = max(file.name for file in (server.directory / "appendonlydir").glob("*.incr.aof")).split(".")
    number = int(following[2]) + 1
    (server.directory / "appendonlydir" / f"appendonly.aof.{number}.incr.aof").symlink_to("/dev/full")
    shop.redis.bgrewriteaof()
    wait_until("the rewrite", lambda: not shop.redis.info("persistence")["aof_rewrite_in_progress"])
    yield "MISCONF"
    shop.redis.config_set("appendonly", "no")
    shop.redis.config_set("appendonly", "yes")


@contextmanager
def busy(shop: RedisPipeline, server: ValkeyServer) -> Iterator[str]:
    def loop() -> None:
        with redis.Redis.from_url(server.url()) as client, suppress(redis.ResponseError):
            client.eval("while true do end", 0)

    thread = threading.Thread(target=loop)
    thread.start()
    yield "BUSY"
    wait_until("the script to end", lambda: _killed(shop.redis))
    thread.join()


def _killed(client: redis.Redis) -> bool:
    try:
        return bool(client.script_kill())
    except redis.ResponseError as error:
        return "NOTBUSY" in str(error)


@contextmanager
def loading(shop: RedisPipeline, server: ValkeyServer) -> Iterator[str]:
    pipe = shop.redis.pipeline(transaction=False)
    for number in range(JUNK):
        pipe.set(f"junk{number}", "")
    pipe.execute()
    server.kill()
    thread = threading.Thread(target=server.start_again)
    thread.start()
    yield "loading the dataset"
    thread.join()


Fault = Callable[[RedisPipeline, ValkeyServer], AbstractContextManager[str]]


@pytest.mark.parametrize(
    "faults",
    [(loading, out_of_memory, read_only, without_replicas), (scripts_lost, dump_fails, disk_full, busy)],
    ids=lambda faults: ", ".join(fault.__name__ for fault in faults),
)
def test_what_redis_refuses_for_a_while_is_waited_for_and_nothing_is_lost(
    shop: RedisPipeline, server: ValkeyServer, faults: tuple[Fault, ...]
) -> None:
    """The pauses grow while sessions are short, so few faults follow each other."""
    for fault in faults:
        since, confirmed = len(shop.reading.output), shop.confirmed()
        shop.wait_published()
        published = shop.published
        with fault(shop, server) as words:
            shop.execute(f"UPDATE rows SET name = '{fault.__name__}'; DELETE FROM others WHERE name <> 'old'")
            shop.execute(f"INSERT INTO others VALUES (1000, '{fault.__name__}')")
            shop.says(shop.reading, words, since)
            assert confirmed <= shop.confirmed() <= published or fault is scripts_lost
        shop.wait_until_equal()
        assert shop.reading.output.count("interrupted", since) <= 8, "no busy loop"


# --- what needs a person ---------------------------------------------------------------------------------------------


def delete_stream(shop: RedisPipeline) -> None:
    shop.redis.delete(shop.keys.stream("row", 1))


def rename_stream(shop: RedisPipeline) -> None:
    shop.redis.rename(shop.keys.stream("row", 1), f"{shop.name}:elsewhere")


@pytest.mark.parametrize("spoil", [delete_stream, rename_stream])
def test_a_stream_that_is_gone_stops_the_reader_and_a_snapshot_heals(
    shop: RedisPipeline, spoil: Callable[[RedisPipeline], None]
) -> None:
    shop.wait_published()
    published = shop.flush_position()
    wait_until("the slot", lambda: shop.confirmed() >= published)
    spoil(shop)
    shop.execute("DELETE FROM rows WHERE id <= 5; UPDATE rows SET name = 'new' WHERE id > 15")
    assert shop.reading.wait() == 3
    assert "stream row ends at 0-0" in shop.reading.output
    assert "`cdc snapshot --all`" in shop.reading.output
    shop.says(shop.applying, "lost its tail")
    shop.run("cdc.cli", "snapshot", "--all")
    shop.reading = shop.reader()
    shop.wait_until_equal()
    assert shop.redis.exists(shop.keys.stream("row", 2))


def test_a_stream_of_another_type_is_told_by_both_and_left_alone(shop: RedisPipeline) -> None:
    key = shop.keys.stream("row", 1)
    shop.wait_published()
    shop.redis.rename(key, "kept")
    shop.redis.set(key, "mine")
    shop.execute("UPDATE rows SET name = 'new'")
    assert shop.reading.wait() == 3
    assert shop.applying.wait() == 3
    assert "WRONGTYPE" in shop.reading.output
    assert f"{key} holds something that statecast did not put there" in shop.applying.output
    assert shop.redis.get(key) == b"mine"
    shop.redis.rename("kept", key)
    shop.start()


def test_a_redis_that_is_emptied_is_filled_again(shop: RedisPipeline) -> None:
    shop.wait_published()
    shop.redis.flushall()
    shop.execute("DELETE FROM rows WHERE id <= 5; UPDATE rows SET name = 'new' WHERE id > 15")
    shop.says(shop.reading, "was there before")
    shop.wait_until_equal()


def test_a_password_that_changed_stops_both_with_one_message_each(
    server: ValkeyServer,
    source_dsn: str,
    target_dsn: str,
    pipeline_name: str,
    tmp_path: Path,
) -> None:
    with redis_pipeline(server, source_dsn, target_dsn, pipeline_name, tmp_path, "") as shop:
        administrator: Any = shop.redis
        administrator.execute_command("ACL", "SETUSER", "somebody", "on", f">{PASSWORD}", "~*", "&*", "+@all")
        url = server.url().replace("redis://", f"redis://somebody:{PASSWORD}@")
        shop.environment["REDIS_URL"] = url
        shop.start()
        administrator.execute_command("ACL", "SETUSER", "somebody", "resetpass", f">{PASSWORD}-2")
        administrator.execute_command("CLIENT", "KILL", "USER", "somebody")
        for command in (shop.reading, shop.applying):
            assert command.wait() == 3
            assert "invalid username-password pair" in command.output
            assert PASSWORD not in command.output
            assert command.output.count("interrupted") <= 2
