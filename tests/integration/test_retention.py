"""Looking at streams and trimming them in a real Redis, with positions and groups as they come."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any, cast

import pytest
import redis
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from cdc.control import Control
from cdc.demo.servers import ValkeyServer
from cdc.retention import streams as redis_side
from cdc.retention.entry_trail import EntryTrail
from cdc.retention.judging import Rules, StreamSeen, backlogs_of, judge
from cdc.retention.streams import StreamName, Streams, names_of
from cdc.transport import connect
from transforms.address import Address
from transforms.keys import Keys
from transforms.position import LSN, Position
from transforms.secret import Secret

KEYS = Keys("shop")
NAME = StreamName("customer", 1)
KEY = KEYS.stream(*NAME)
FAR = Position(LSN(1 << 40), 0)


@pytest.fixture
def client(redis_url: str) -> Iterator[redis.Redis]:
    with connect(Address("transport", Secret(redis_url))) as made:
        yield made


@pytest.fixture
def streams(client: redis.Redis) -> Streams:
    return Streams(client, KEYS)


def at(lsn: int) -> Position:
    return Position(LSN(lsn), 1_000_000)


def fill(client: redis.Redis, *lsns: int, size: int = 10, key: str = KEY) -> None:
    """An entry for each LSN, committed so many seconds after 1970."""
    pipe = client.pipeline(transaction=False)
    for lsn in lsns:
        pipe.xadd(key, {"state": b"x" * size, "ts": lsn * 1_000_000}, id=str(at(lsn)))
    pipe.execute()


def lsns(client: redis.Redis, key: str = KEY) -> list[int]:
    return [int(entry_id.split(b"-")[0]) for entry_id, _ in cast(Any, client.xrange(key))]


def look(streams: Streams) -> StreamSeen:
    found = streams.look(NAME, streams.sinks(), streams.passed())
    assert found is not None
    return found


def register(client: redis.Redis, sink: str, lsn: int | None) -> None:
    """A sink's status, with its position."""
    places = {} if lsn is None else {"customer": str(at(lsn))}
    client.set(KEYS.sink_status(sink), json.dumps({"name": sink, "streams": places}))


def trim(streams: Streams, keep_from: Position, *exempt: str) -> int:
    return sum(streams.trim(NAME, keep_from, exempt))


def test_trimming_keeps_the_entry_at_the_lowest_id_exactly(client: redis.Redis, streams: Streams) -> None:
    fill(client, *range(1, 501))
    assert trim(streams, at(333)) == 332
    assert lsns(client) == list(range(333, 501))


def test_a_large_trim_is_made_in_steps(client: redis.Redis, streams: Streams, monkeypatch: pytest.MonkeyPatch) -> None:
    fill(client, *range(1, 5_001))
    monkeypatch.setattr(redis_side, "STEP_ENTRIES", 1_000)
    steps = list(streams.trim(NAME, at(4_990), ()))
    assert sum(steps) == 4_989
    assert len(steps) >= 6
    assert max(steps) <= 1_000


def test_a_group_made_after_the_look_is_respected(client: redis.Redis, streams: Streams) -> None:
    fill(client, *range(1, 101))
    client.xgroup_create(KEY, "late", str(at(20)))
    assert trim(streams, at(90)) == 19
    assert lsns(client)[0] == 20


def test_pending_entries_are_respected_though_later_ones_were_delivered(client: redis.Redis, streams: Streams) -> None:
    fill(client, *range(1, 101))
    client.xgroup_create(KEY, "audit", "0")
    delivered = cast(Any, client.xreadgroup("audit", "me", {KEY: ">"}, count=60))[0][1]
    client.xack(KEY, "audit", *(entry_id for entry_id, _ in delivered[:10] + delivered[30:]))
    (holder,) = look(streams).holders
    assert (holder.name, holder.position, holder.is_sink) == ("audit", at(11), False)
    trim(streams, at(100))
    assert lsns(client)[0] == 11


def test_a_sink_that_was_trimmed_past_finds_that_and_others_are_respected(
    client: redis.Redis, streams: Streams
) -> None:
    fill(client, *range(1, 101))
    for name, lsn in (("billing", 10), ("mail", 50)):
        client.xgroup_create(KEY, name, str(at(lsn)))
        register(client, name, lsn)
    trim(streams, at(80), "billing")
    assert lsns(client)[0] == 50
    assert client.hgetall(KEYS.passed) == {b"billing customer": str(at(50)).encode()}
    assert streams.passed() == {("billing", "customer"): str(at(50))}
    assert [(holder.name, holder.is_passed) for holder in look(streams).holders] == [("billing", True), ("mail", False)]
    streams.unmark("billing", NAME, streams.passed())
    assert streams.passed() == {}


def test_a_mark_that_another_reader_has_set_anew_stays(client: redis.Redis, streams: Streams) -> None:
    fill(client, *range(1, 101))
    client.xgroup_create(KEY, "billing", str(at(10)))
    trim(streams, at(50), "billing")
    client.xgroup_setid(KEY, "billing", str(at(60)))  # it has begun again
    slow = streams.passed()  # as a reader sees it that is slow from here on
    streams.unmark("billing", NAME, slow)
    trim(streams, at(80), "billing")  # and it fell behind again
    streams.unmark("billing", NAME, slow)
    assert streams.passed() == {("billing", "customer"): str(at(80))}
    streams.unmark("billing", NAME, streams.passed())
    assert streams.passed() == {}


def test_who_is_exempt_and_was_not_passed_is_not_marked(client: redis.Redis, streams: Streams) -> None:
    fill(client, *range(1, 101))
    client.xgroup_create(KEY, "billing", str(at(70)))
    trim(streams, at(70), "billing")
    assert (lsns(client)[0], streams.passed()) == (70, {})


def test_a_sink_counts_by_its_group_and_by_its_status_where_that_is_gone(client: redis.Redis, streams: Streams) -> None:
    fill(client, *range(1, 101))
    register(client, "billing", 30)
    register(client, "mail", 40)
    register(client, "new", None)
    client.xgroup_create(KEY, "mail", str(at(45)))
    found = {holder.name: holder for holder in look(streams).holders}
    assert (found["billing"].position, found["billing"].has_group, found["billing"].is_sink) == (at(30), False, True)
    assert (found["mail"].position, found["mail"].has_group) == (at(45), True)
    assert "new" not in found


@pytest.mark.parametrize(("seconds", "expected"), [(0.5, 1), (55.0, 60), (50.0, 60), (999.0, 1000), (5000.0, None)])
def test_the_first_younger_entry_is_found(
    client: redis.Redis, streams: Streams, seconds: float, expected: int | None
) -> None:
    fill(client, 1, *range(10, 1001, 10))
    found = streams.younger_than(look(streams), seconds)
    below = [lsn for lsn in lsns(client) if at(lsn) < found]
    kept = [lsn for lsn in lsns(client) if at(lsn) >= found]
    assert (kept[0] if kept else None) == expected
    assert all(lsn <= seconds for lsn in below)


def test_an_empty_or_missing_stream_is_left_alone(client: redis.Redis, streams: Streams) -> None:
    assert streams.look(NAME, (), {}) is None
    client.xgroup_create(KEY, "billing", "0", mkstream=True)
    assert streams.look(NAME, (), {}) is None
    assert streams.groups(NAME) == ["billing"]


def test_trails_are_found_again(client: redis.Redis, streams: Streams) -> None:
    fill(client, *range(1, 11))
    trail = streams.trails().get(KEY)
    assert trail is None
    seen = look(streams)
    stored = EntryTrail([(at(4), 4)])
    stored.note(seen.last, seen.added)
    streams.store_trails({KEY: stored})
    assert streams.trails()[KEY].samples == ((at(4), 4), (at(10), 10))
    assert streams.trails()[KEY].behind(at(3)) == 6


def test_streams_of_earlier_epochs_are_among_them(client: redis.Redis, streams: Streams) -> None:
    client.hset(KEYS.meta, mapping={"epoch": "2", "last:customer": str(at(5))})
    state = Control(client, KEYS).state(["order"])
    assert set(names_of(state)) == {(name, epoch) for name in ("customer", "order") for epoch in (1, 2)}


positions = st.integers(0, 120)


@given(
    kept=st.integers(1, 120),
    groups=st.dictionaries(st.sampled_from("abcd"), positions, max_size=4),
    statuses=st.dictionaries(st.sampled_from("abcd"), positions, max_size=3),
    young=st.integers(1, 130),
    rules=st.sampled_from([Rules(None, "block"), Rules(300, "block"), Rules(300, "resync")]),
)
@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_whatever_is_decided_is_what_stays(
    client: redis.Redis,
    streams: Streams,
    kept: int,
    groups: dict[str, int],
    statuses: dict[str, int],
    young: int,
    rules: Rules,
) -> None:
    client.flushall()
    fill(client, *range(1, 101))
    for name, lsn in groups.items():
        client.xgroup_create(KEY, name, str(at(lsn)))
    for name, lsn in statuses.items():
        register(client, name, lsn)
    seen = look(streams)
    trail = EntryTrail([(at(lsn), lsn) for lsn in range(1, 101)])
    judgement = judge(
        seen,
        backlogs_of(seen, trail),
        rules,
        confirmed=LSN(kept),
        young=Position(LSN(young), 0),
        memory_is_short=False,
    )
    trim(streams, judgement.keep_from, *judgement.exempt)
    left = lsns(client)
    assert left == [lsn for lsn in range(1, 101) if at(lsn) >= judgement.keep_from]
    assert left[-1] == 100
    for name, lsn in {**statuses, **groups}.items():
        if 1 <= lsn <= 100 and name not in judgement.exempt:
            assert lsn in left
    assert {name for name, _ in streams.passed()} == {
        name for name in judgement.exempt if at(groups[name]) < judgement.keep_from
    }


def test_a_full_redis_is_trimmed_and_sinks_are_marked_all_the_same() -> None:
    with ValkeyServer.start() as server, connect(Address("transport", Secret(server.url()))) as client:
        streams = Streams(client, KEYS)
        fill(client, *range(1, 2_001), size=1000)
        client.xgroup_create(KEY, "billing", str(at(5)))
        client.config_set("maxmemory", client.info("memory")["used_memory"] - 100_000)
        with pytest.raises(redis.exceptions.OutOfMemoryError):
            fill(client, 3_000)
        assert streams.memory().is_short
        assert trim(streams, at(1_900), "billing") == 1_899
        assert streams.passed() == {("billing", "customer"): str(at(1_900))}
        streams.unmark("billing", NAME, streams.passed())
        assert streams.passed() == {}
        fill(client, 3_000)
