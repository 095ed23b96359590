"""Streams that a sink asks for and that are not there (yet), or are no streams."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import redis

from sinks.errors import KeyForeign
from sinks.stream import Meta, StreamReader
from sinks.transport import connect
from transforms.address import Address
from transforms.keys import Keys
from transforms.position import LSN, START
from transforms.secret import Secret

META = Meta("one", 1, LSN(48))


@pytest.fixture
def client(redis_url: str, pipeline_name: str) -> Iterator[redis.Redis]:
    with redis.Redis.from_url(redis_url) as made:
        made.hset(Keys(pipeline_name).meta, mapping={"incarnation": "one", "epoch": "1", "published": "0/30"})
        yield made


@pytest.fixture
def reader(client: redis.Redis, redis_url: str, pipeline_name: str) -> StreamReader:
    return StreamReader(connect(Address("transport", Secret(redis_url), True)), Keys(pipeline_name), "copy")


def test_a_stream_that_is_not_there_has_no_entries_and_costs_no_connection(
    client: redis.Redis, reader: StreamReader, pipeline_name: str
) -> None:
    def read() -> tuple[int, bool, bool, LSN]:
        found = reader.read("row", META, START, 100)
        return len(found.entries), found.full, found.at_end, found.published

    assert read() == (0, False, True, LSN(48))
    connections = client.info("stats")["total_connections_received"]
    assert [read() for _ in range(3)] == [(0, False, True, LSN(48))] * 3
    assert client.info("stats")["total_connections_received"] == connections
    client.xadd(f"{pipeline_name}:row", {"op": "mark"}, id="9-1000000")
    assert read() == (1, False, True, LSN(48))


def test_of_several_streams_the_one_that_is_none_any_more_is_named_alone(
    client: redis.Redis, reader: StreamReader, pipeline_name: str
) -> None:
    client.xadd(f"{pipeline_name}:other", {"op": "mark"}, id="9-1000000")
    client.set(f"{pipeline_name}:row", "mine")
    reader.wait({"other": START, "row": START}, 20.0)
    reader.read("other", META, START, 100)
    with pytest.raises(KeyForeign, match=f"^{pipeline_name}:row holds something"):
        reader.read("row", META, START, 100)
