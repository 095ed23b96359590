"""Batches are made ahead, and only used where they belong."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from typing import cast

import pytest

from sinks.entries import Entries, Entry
from sinks.errors import StreamHole
from sinks.feed import Feed, Place
from sinks.stream import Meta, Read, StreamReader
from transforms.position import LSN, START, Position

META = Meta("one", 1, LSN(500))


def entry(lsn: int, *, end: bool = True) -> Entry:
    words = [b"op", b"delete", b"type", b"customer.v1", b"key", b"{}", b"ts", b"2000000", b"tx", b"7"]
    return b"%d-1000000" % lsn, [*words, b"end", b"1"] if end else words


class Stream:
    """A stream of which two entries are read at a time."""

    def __init__(self, *entries: Entry) -> None:
        self.entries = Entries(entries)
        self.reads: list[tuple[Position, str]] = []

    def read(self, stream: str, meta: Meta, checkpoint: Position, limit: int) -> Read:
        self.reads.append((checkpoint, threading.current_thread().name))
        behind = Entries(one for one in self.entries if Position.parse(one[0].decode()) > checkpoint)
        if checkpoint != START and not any(one[0].decode() == str(checkpoint) for one in self.entries):
            raise StreamHole("the checkpoint is gone")
        size = min(limit, 2)
        return Read(behind[:size], len(behind) > size, len(behind) <= size, LSN(500))


def feed_of(stream: Stream) -> Feed:
    return Feed(cast(StreamReader, stream), "billing")


def place(behind: Position = START, goal: Position | None = None) -> Place:
    return Place(META, "customer", {b"customer.v1": "customer.v1"}, behind, goal)


@pytest.fixture
def stream() -> Stream:
    return Stream(entry(10), entry(20), entry(30), entry(40, end=False))


@pytest.fixture
def feed(stream: Stream) -> Iterator[Feed]:
    made = feed_of(stream)
    yield made
    made.close()


def test_what_was_begun_is_taken_and_not_read_again(stream: Stream, feed: Feed) -> None:
    first = feed.take(place())
    assert first.end is not None
    assert (str(first.end), first.more) == ("20-1000000", True)
    feed.begin(place(first.end))
    assert str(feed.take(place(first.end)).end) == "30-1000000"
    assert [str(behind) for behind, _ in stream.reads] == ["0-0", "20-1000000"]
    assert stream.reads[1][1] != threading.current_thread().name


def test_what_was_begun_for_another_place_is_forgotten(stream: Stream, feed: Feed) -> None:
    feed.begin(place(Position.parse("20-1000000")))
    assert str(feed.take(place()).end) == "20-1000000"


def test_what_was_begun_is_kept_while_other_streams_have_their_turn(stream: Stream, feed: Feed) -> None:
    other = place()._replace(stream="order")
    feed.begin(place())
    assert str(feed.take(other).end) == "20-1000000"
    feed.begin(other)  # not one more beside it
    feed.take(place())
    assert [thread == threading.current_thread().name for _, thread in stream.reads] in ([False, True], [True, False])


def test_a_hole_met_in_the_background_is_raised_where_the_batch_is_taken(stream: Stream, feed: Feed) -> None:
    feed.begin(place(Position.parse("15-1000000")))
    with pytest.raises(StreamHole):
        feed.take(place(Position.parse("15-1000000")))


def test_a_batch_ends_with_a_transaction_and_says_what_it_left(feed: Feed) -> None:
    batch = feed.take(place(Position.parse("20-1000000")))
    assert (str(batch.end), str(batch.seen), batch.at_end) == ("30-1000000", "40-1000000", False)
    assert batch.complete_to == LSN(0)  # part of a transaction before `published` is left


def test_a_transaction_larger_than_a_turn_is_read_whole() -> None:
    feed = feed_of(Stream(entry(10, end=False), (b"10-2000000", entry(10)[1]), entry(20)))
    assert str(feed.take(place()._replace(limit=1)).end) == "10-2000000"
    feed.close()


def test_a_batch_stops_at_the_goal_even_inside_of_a_transaction(feed: Feed) -> None:
    goal = Position.parse("40-1000000")
    assert feed.take(place(Position.parse("20-1000000"), goal)).end == goal
    assert str(feed.take(place(goal=Position.parse("10-1000000"))).end) == "10-1000000"


def test_what_is_read_is_published_though_redis_does_not_say_so_yet() -> None:
    feed = feed_of(Stream(entry(510)))
    batch = feed.take(place())
    feed.close()
    assert (batch.published, batch.complete_to) == (LSN(510), LSN(500))
