"""Batches on their way to Redis, two at a time."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import Any, cast

import pytest
import redis

import sinks.transport
from cdc import append
from cdc.batch import Batch, BatchBuilder
from cdc.demo.servers import ValkeyServer
from cdc.errors import TransportFull
from cdc.publisher import Publisher, StreamHole
from cdc.transport import connect
from tests.processes import wait_until
from transforms.address import Address
from transforms.keys import Keys
from transforms.position import LSN, Position
from transforms.secret import Secret

KEYS = Keys("shop")
STREAM = KEYS.stream("customer", 1)


def batch(*lsns: int, state: bytes = b"{}") -> Batch:
    """One transaction with one entry for each LSN."""
    builder = BatchBuilder(LSN(1), 1000, 1 << 20)
    template = append.upsert_template(b"customer.v1")
    for lsn in lsns:
        builder.begin_transaction(b"1700000000000000", b"7")
        entry_id = b"%d-1000000" % lsn
        builder.add("customer", template % (len(entry_id), entry_id, 8, b'{"id":1}', len(state), state), 5)
        builder.end_transaction()
        builder.end = LSN(lsn + 1)
    return builder.take()


@pytest.fixture
def server() -> Iterator[ValkeyServer]:
    with ValkeyServer.start() as started:
        yield started


@pytest.fixture
def client(server: ValkeyServer) -> Iterator[redis.Redis]:
    with connect(Address("transport", Secret(server.url()))) as made:
        yield made


@pytest.fixture
def publisher(client: redis.Redis) -> Iterator[Publisher]:
    made = Publisher(client, KEYS, 1, {})
    yield made
    made.close()


def ids(client: redis.Redis) -> list[str]:
    found = cast(list[Any], client.xrange(STREAM))
    return [entry_id.decode() for entry_id, _ in found]


def published(client: redis.Redis) -> str | None:
    value = client.hget(KEYS.meta, "published")
    return value.decode() if isinstance(value, bytes) else None


def test_a_batch_is_stored_with_the_one_that_follows(client: redis.Redis, publisher: Publisher) -> None:
    publisher.send(batch(10))
    publisher.send(batch(20))
    assert publisher.advance() is None  # its entries are in, its position is not stored yet
    assert published(client) is None
    publisher.send(batch(30))
    assert publisher.advance() is None
    assert publisher.advance() == LSN(11)
    assert published(client) == str(LSN(11))
    assert publisher.advance() == LSN(31)  # with nothing behind it, at once
    assert publisher.idle
    assert published(client) == str(LSN(31))
    assert ids(client) == ["10-1000000", "20-1000000", "30-1000000"]


@pytest.mark.parametrize("third", [False, True])
def test_of_two_batches_on_their_way_both_are_stored(client: redis.Redis, publisher: Publisher, third: bool) -> None:
    other = replace(batch(15), streams={"order": batch(15).streams["customer"]}, notes={"a": "done", "b": "running"})
    publisher.send(other)
    publisher.send(replace(batch(20), notes={"b": "done"}))
    publisher.advance()
    if third:
        publisher.send(batch(30))
    while not publisher.idle:
        publisher.advance()
    assert client.hgetall(KEYS.runs) == {b"a": b"done", b"b": b"done"}
    last = client.hmget(KEYS.meta, "last:order", "last:customer")
    assert last == [b"15-1000000", b"30-1000000" if third else b"20-1000000"]
    assert published(client) == str(LSN(31 if third else 21))


def test_behind_a_batch_that_failed_the_next_one_appends_nothing(client: redis.Redis, publisher: Publisher) -> None:
    publisher.send(batch(10))
    while not publisher.idle:
        publisher.advance()
    client.config_set("maxmemory", 1)
    publisher.send(batch(20))
    wait_until("the refusal", lambda: "errorstat_OOM" in client.info("errorstats"))
    client.config_set("maxmemory", 0)
    publisher.send(batch(30))  # there is room again, and still there must be no hole
    with pytest.raises(TransportFull):
        publisher.advance()
    wait_until("both calls", lambda: client.info("commandstats")["cmdstat_evalsha"]["calls"] >= 2)
    assert ids(client) == ["10-1000000"]
    assert published(client) == str(LSN(11))


def test_a_stream_that_lost_its_end_is_not_appended_to(client: redis.Redis) -> None:
    publisher = Publisher(client, KEYS, 1, {"customer": Position.parse("5-1000000")})
    publisher.send(batch(10))
    publisher.send(batch(20))
    with pytest.raises(StreamHole):
        publisher.advance()
    publisher.close()
    assert ids(client) == []
    assert published(client) is None


def test_what_is_there_already_is_skipped_and_its_position_stored(client: redis.Redis, publisher: Publisher) -> None:
    publisher.send(batch(10, 20))
    while not publisher.idle:
        publisher.advance()
    again = Publisher(client, KEYS, 1, {"customer": Position.parse("20-1000000")})
    again.send(batch(10, 20, 30))
    assert again.advance() is None
    assert again.advance() == LSN(31)
    again.close()
    assert (again.skipped, again.appended) == (2, 1)
    assert ids(client) == ["10-1000000", "20-1000000", "30-1000000"]


def test_entries_that_are_trimmed_while_repeats_are_proved_are_no_sign_of_another_source(
    client: redis.Redis, publisher: Publisher, monkeypatch: pytest.MonkeyPatch
) -> None:
    publisher.send(batch(10, 20, 30))
    while not publisher.idle:
        publisher.advance()
    again = Publisher(client, KEYS, 1, {"customer": Position.parse("30-1000000")})
    again.send(batch(10, 20, 30))
    execute: Any = client.execute_command

    def trimmed_behind_it(*words: Any, **options: Any) -> Any:
        answer = execute(*words, **options)
        if words[0] == "XRANGE":
            execute("XTRIM", STREAM, "MINID", "30-0")
        return answer

    monkeypatch.setattr(client, "execute_command", trimmed_behind_it)
    again.advance()
    again.close()
    assert again.skipped == 3


def test_redis_is_reached_over_a_unix_socket_too(server: ValkeyServer) -> None:
    url = f"unix://{server.socket_file}"
    address = Address("transport", Secret(url))
    with connect(address) as of_reader, sinks.transport.connect(address) as of_sink:
        assert of_reader.ping()
        assert of_sink.ping()
