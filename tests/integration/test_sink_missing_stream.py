"""A sink may read a stream that is not there (yet): nothing was published, or it was deleted."""

from __future__ import annotations

import redis

from sinks.stream import Meta, StreamReader
from sinks.transport import connect
from transforms.address import Address
from transforms.keys import Keys
from transforms.position import LSN, START
from transforms.secret import Secret


def test_a_stream_that_is_not_there_has_no_entries_and_costs_no_connection(redis_url: str, pipeline_name: str) -> None:
    keys, meta = Keys(pipeline_name), Meta("one", 1, LSN(48))
    with redis.Redis.from_url(redis_url) as client:
        client.hset(keys.meta, mapping={"incarnation": "one", "epoch": "1", "published": "0/30"})
        reader = StreamReader(connect(Address("transport", Secret(redis_url), True)), keys, "copy")

        def read() -> tuple[int, bool, bool, LSN]:
            found = reader.read("row", meta, START, 100)
            return len(found.entries), found.full, found.at_end, found.published

        assert read() == (0, False, True, LSN(48))
        connections = client.info("stats")["total_connections_received"]
        assert [read() for _ in range(3)] == [(0, False, True, LSN(48))] * 3
        assert client.info("stats")["total_connections_received"] == connections
        client.xadd(f"{pipeline_name}:row", {"op": "mark"}, id="9-1000000")
        assert read() == (1, False, True, LSN(48))
