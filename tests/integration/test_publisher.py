"""Batches on their way to Redis, two at a time."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import Any, cast

import pytest
import redis

import sinks.transport
from cdc import append, append_link
from cdc.batch import Batch, BatchBuilder
from cdc.demo.servers import ValkeyServer
from cdc.errors import TransportError, TransportFull, TransportRefused, TransportUnreachable
from cdc.proof import SourceDiverged
from cdc.publisher import Publisher, StreamHole
from cdc.transport import EntryTooLarge, connect
from tests.processes import wait_until
from transforms.address import Address
from transforms.keys import Keys
from transforms.position import LSN, Position
from transforms.secret import Secret

KEYS = Keys("shop")
STREAM = KEYS.stream("customer", 1)


def batch(*lsns: int, state: bytes = b"{}", stream: str = "customer") -> Batch:
    """One transaction with one entry for each LSN."""
    builder = BatchBuilder(LSN(1), 1000, 1 << 20)
    template, tail = (
        append.Template(KEYS.stream(stream, 1).encode(), b"customer.v1"),
        append.tail(b"1700000000000000", b"7"),
    )
    for lsn in lsns:
        entry_id = b"%d-1000000" % lsn
        builder.add(stream, template.upsert % (len(entry_id), entry_id, 8, b'{"id":1}', len(state), state, tail))
        builder.end_transaction()
        builder.end = LSN(lsn + 1)
    return builder.take()


@pytest.fixture
def server() -> Iterator[ValkeyServer]:
    with ValkeyServer.start() as started:
        yield started


@pytest.fixture(params=["quiet", "loud"])
def client(server: ValkeyServer, request: pytest.FixtureRequest) -> Iterator[redis.Redis]:
    with connect(Address("transport", Secret(server.url()))) as made:
        if request.param == "loud":
            made.execute_command("ACL", "SETUSER", "default", "-client|reply")
        yield made


@pytest.fixture(params=[1, 100], autouse=True)
def piece_entries(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> int:
    """How many entries a transaction of Redis has: with one, every batch is several."""
    monkeypatch.setattr(append_link, "PIECE_ENTRIES", request.param)
    return cast(int, request.param)


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
    other = replace(batch(15, stream="order"), notes={"a": "done", "b": "running"})
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
    assert ids(client) == ["10-1000000"]
    assert published(client) == str(LSN(11))


def test_of_a_batch_that_fails_midway_nothing_is_behind_the_gap(
    client: redis.Redis, publisher: Publisher, piece_entries: int
) -> None:
    publisher.send(batch(5))
    while not publisher.idle:
        publisher.advance()
    lsns, room = range(10, 910), 1_200_000
    client.config_set("maxmemory", client.info("memory")["used_memory"] + room)
    publisher.send(batch(*lsns, state=b'"' + b"x" * 2000 + b'"'))
    with pytest.raises(TransportFull):
        publisher.advance()
    publisher.close()
    found = ids(client)
    assert found == [f"{lsn}-1000000" for lsn in (5, *lsns)][: len(found)]
    assert len(found) - 1 in range(1, 900)
    assert (len(found) - 1) % piece_entries == 0
    client.config_set("maxmemory", 0)
    again = Publisher(client, KEYS, 1, {"customer": Position.parse(found[-1])}, published=LSN(6))
    again.send(batch(*lsns))
    while not again.idle:
        again.advance()
    again.close()
    assert ids(client) == [f"{lsn}-1000000" for lsn in (5, *lsns)]
    assert again.skipped == len(found) - 1


def test_a_stream_that_lost_its_end_is_not_appended_to(client: redis.Redis) -> None:
    publisher = Publisher(client, KEYS, 1, {"customer": Position.parse("5-1000000")})
    publisher.send(batch(10))
    publisher.send(batch(20))
    with pytest.raises(StreamHole):
        publisher.advance()
    publisher.close()
    assert ids(client) == []
    assert published(client) is None


def test_a_position_is_not_stored_where_its_entries_are_gone_again(client: redis.Redis, publisher: Publisher) -> None:
    publisher.send(batch(10))
    publisher.advance()  # they are in; their position is stored with the next batch, which is of another stream
    client.delete(STREAM)
    publisher.send(batch(20, stream="order"))
    with pytest.raises(StreamHole, match="ends at 0-0, and 10-1000000 was in it"):
        publisher.advance()
    assert published(client) is None


def test_a_position_is_not_stored_over_one_that_went_back(client: redis.Redis, publisher: Publisher) -> None:
    for lsn in (10, 20):
        publisher.send(batch(lsn))
        while not publisher.idle:
            publisher.advance()
    client.hset(KEYS.meta, "published", str(LSN(11)))  # as of a Redis that has lost the second one
    publisher.send(batch(30, stream="order"))
    assert publisher.advance() is None
    with pytest.raises(StreamHole, match=f"says {LSN(11)} was published, and {LSN(21)} was"):
        publisher.advance()
    assert published(client) == str(LSN(11))


def test_a_stream_whose_end_is_older_is_shut_and_left_as_it_was(client: redis.Redis, publisher: Publisher) -> None:
    for lsn in (10, 20, 30):
        publisher.send(batch(lsn))
    while not publisher.idle:
        publisher.advance()
    client.xdel(STREAM, "30-1000000")  # the last id stays
    before = client.xinfo_stream(STREAM)
    behind = Publisher(client, KEYS, 1, {"customer": Position.parse("40-1000000")})
    behind.send(batch(50))
    behind.send(batch(60))
    with pytest.raises(StreamHole, match="ends at 30-1000000, expected 40-1000000"):
        behind.advance()
    behind.close()
    assert client.xinfo_stream(STREAM) == before


def test_a_stream_that_was_trimmed_to_nothing_keeps_its_last_id(client: redis.Redis, publisher: Publisher) -> None:
    publisher.send(batch(10))
    while not publisher.idle:
        publisher.advance()
    client.xtrim(STREAM, maxlen=0, approximate=False)
    behind = Publisher(client, KEYS, 1, {"customer": Position.parse("20-1000000")})
    behind.send(batch(30))
    with pytest.raises(StreamHole):
        behind.advance()
    behind.close()
    assert client.xinfo_stream(STREAM)["last-generated-id"] == b"10-1000000"
    assert sorted(client.scan_iter("shop:*")) == sorted([STREAM.encode(), KEYS.meta.encode()])


def test_without_its_script_the_guard_keeps_the_next_batch_out_all_the_same(
    client: redis.Redis, publisher: Publisher
) -> None:
    publisher.send(batch(10))
    while not publisher.idle:
        publisher.advance()
    client.delete(STREAM)
    client.script_flush()
    publisher.send(batch(20))
    with pytest.raises(TransportError):
        publisher.advance()
    assert client.exists(STREAM) == 0


def test_entries_that_somebody_else_added_are_not_taken_for_ours(client: redis.Redis, publisher: Publisher) -> None:
    publisher.send(batch(10))
    while not publisher.idle:
        publisher.advance()
    client.xadd(STREAM, {"op": "upsert", "tx": "9", "ts": "9"}, id="20-1000000")
    publisher.send(batch(20, 30))
    with pytest.raises(SourceDiverged, match="20-1000000"):
        publisher.advance()


def test_what_a_second_reader_has_appended_in_the_meantime_is_proved(client: redis.Redis, publisher: Publisher) -> None:
    publisher.send(batch(10))
    while not publisher.idle:
        publisher.advance()
    other = Publisher(client, KEYS, 1, {"customer": Position.parse("10-1000000")})
    other.send(batch(20, 30, 40, 50))
    other.advance()
    other.close()
    publisher.send(batch(20, 30))
    publisher.advance()
    assert (publisher.appended, publisher.skipped) == (1, 2)
    assert ids(client) == [f"{lsn}-1000000" for lsn in (10, 20, 30, 40, 50)]


def test_a_server_that_became_a_replica_is_waited_for(client: redis.Redis, publisher: Publisher) -> None:
    client.replicaof("127.0.0.1", 1)
    publisher.send(batch(10))
    with pytest.raises(TransportUnreachable):
        publisher.advance()


def test_a_stream_that_is_gone_is_shut_and_stays_gone(client: redis.Redis, publisher: Publisher) -> None:
    publisher.send(batch(10))
    while not publisher.idle:
        publisher.advance()
    client.delete(STREAM)
    publisher.send(batch(20))
    publisher.send(batch(30))
    with pytest.raises(StreamHole, match="ends at 0-0"):
        publisher.advance()
    assert client.exists(STREAM) == 0


def test_a_key_of_another_type_is_left_alone_and_told(client: redis.Redis, publisher: Publisher) -> None:
    client.set(STREAM, "mine")
    publisher.send(batch(10))
    with pytest.raises(TransportRefused, match="WRONGTYPE"):
        publisher.advance()
    assert client.get(STREAM) == b"mine"


def test_an_entry_that_redis_does_not_take_is_told(client: redis.Redis, publisher: Publisher) -> None:
    client.config_set("proto-max-bulk-len", 1 << 20)

    def publish() -> None:
        publisher.send(batch(10, state=b'"' + b"x" * (1 << 20) + b'"'))  # Redis may hang up before it has arrived
        publisher.advance()

    with pytest.raises(EntryTooLarge):
        publish()


def test_what_is_there_already_is_skipped_and_its_position_stored(client: redis.Redis, publisher: Publisher) -> None:
    publisher.send(batch(10, 20))
    while not publisher.idle:
        publisher.advance()
    again = Publisher(client, KEYS, 1, {"customer": Position.parse("20-1000000")}, published=LSN(21))
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
