"""The visibility rule for chunks, case by case: no row is published that is older than what the stream has shown."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cdc.snapshot.visibility import Deliveries, Snapshot, Verdict, Window

NOTHING = Verdict((), frozenset(), False, frozenset())
EVENT = "customer.v1"


def snapshot(xmax: int, *in_progress: int) -> Snapshot:
    return Snapshot(min([xmax, *in_progress]), xmax, frozenset(in_progress))


class Chunks:
    """Deliveries, and the one chunk that most cases need."""

    def __init__(self, at_connect: Snapshot | None = None) -> None:
        self.deliveries = Deliveries(snapshot(100) if at_connect is None else at_connect)
        self.delivered = self.deliveries.delivered
        self.seen = self.deliveries.seen
        self.window: Window

    def open(self) -> None:
        self.window = self.deliveries.open(EVENT)

    def close(self, seen: Snapshot) -> Verdict:
        return self.deliveries.close(EVENT, self.window, seen)

    def touch(self, xid: int, *keys: bytes, whole: bool = True) -> None:
        self.delivered(xid)
        for key in keys:
            self.deliveries.touched(EVENT, key, whole=whole)

    def truncate(self, xid: int) -> None:
        self.delivered(xid)
        self.deliveries.touched_all(EVENT)


# Before the low mark


def test_a_chunk_that_nothing_meets_is_published_whole() -> None:
    quiet = Chunks()
    quiet.open()
    verdict = quiet.close(snapshot(100))
    assert verdict == NOTHING
    assert verdict.keeps(b"1")


def test_a_transaction_delivered_before_the_low_mark_and_seen_lets_the_chunk_pass() -> None:
    early = Chunks()
    early.delivered(100)
    early.open()
    assert early.close(snapshot(101)) == NOTHING


@pytest.mark.parametrize("unseeing", [snapshot(100), snapshot(101, 100), snapshot(105, 100, 103)])
def test_a_transaction_delivered_before_the_low_mark_and_unseen_discards_the_chunk(unseeing: Snapshot) -> None:
    early = Chunks()
    early.delivered(100)
    early.open()
    assert early.close(unseeing).unseen == (100,)


def test_the_chunk_after_a_discarded_one_is_published_once_the_transaction_is_seen() -> None:
    early = Chunks()
    early.delivered(100)
    early.open()
    early.close(snapshot(101, 100))
    early.open()
    assert early.close(snapshot(101)) == NOTHING


def test_a_transaction_in_progress_at_connect_and_still_unseen_discards_the_chunk() -> None:
    reconnected = Chunks(snapshot(100, 90))
    reconnected.open()
    assert reconnected.close(snapshot(101, 90)).unseen == (90,)


def test_a_transaction_in_progress_at_connect_that_is_seen_lets_the_chunk_pass() -> None:
    reconnected = Chunks(snapshot(100, 90))
    reconnected.open()
    assert reconnected.close(snapshot(101)) == NOTHING


def test_a_transaction_in_progress_at_connect_and_delivered_between_the_marks_only_takes_its_keys_out() -> None:
    reconnected = Chunks(snapshot(100, 90))
    reconnected.open()
    reconnected.touch(90, b"1")
    assert reconnected.close(snapshot(101, 90)) == Verdict((), frozenset({b"1"}), False, frozenset())


# Between the marks


def test_a_transaction_delivered_between_the_marks_and_unseen_takes_its_keys_out_of_the_chunk() -> None:
    busy = Chunks()
    busy.open()
    busy.touch(100, b"1", b"2")
    busy.touch(101, b"3")
    verdict = busy.close(snapshot(101, 100))
    assert verdict == Verdict((), frozenset({b"1", b"2", b"3"}), False, frozenset())
    assert [verdict.keeps(key) for key in (b"1", b"3", b"4")] == [False, False, True]


def test_a_transaction_delivered_between_the_marks_and_seen_leaves_its_rows_in_the_chunk() -> None:
    busy = Chunks()
    busy.open()
    busy.touch(100, b"1")
    assert busy.close(snapshot(101)) == NOTHING


def test_a_transaction_delivered_between_the_marks_and_unseen_discards_the_next_chunk() -> None:
    busy = Chunks()
    busy.open()
    busy.touch(100, b"1")
    busy.close(snapshot(101, 100))
    busy.open()
    assert busy.close(snapshot(102, 100)).unseen == (100,)


def test_a_truncate_between_the_marks_and_unseen_takes_every_row_out_of_the_chunk() -> None:
    emptied = Chunks()
    emptied.open()
    emptied.truncate(100)
    assert not emptied.close(snapshot(101, 100)).keeps(b"1")


def test_a_truncate_between_the_marks_and_seen_leaves_the_rows_that_came_after_it() -> None:
    emptied = Chunks()
    emptied.open()
    emptied.truncate(100)
    assert emptied.close(snapshot(101)).keeps(b"1")


def test_a_key_whose_own_event_was_no_whole_row_must_be_read_again() -> None:
    partial = Chunks()
    partial.open()
    partial.touch(100, b"1", whole=False)
    partial.touch(101, b"2")
    assert partial.close(snapshot(102, 100, 101)).incomplete == {b"1"}


def test_a_partial_event_that_the_chunk_has_seen_needs_nothing_more() -> None:
    partial = Chunks()
    partial.open()
    partial.touch(100, b"1", whole=False)
    assert partial.close(snapshot(101)) == NOTHING


def test_the_same_transaction_id_delivered_again_keeps_all_its_keys() -> None:
    repeated = Chunks()
    repeated.open()
    repeated.touch(100, b"1")
    repeated.touch(100, b"2")
    assert repeated.close(snapshot(101, 100)).dropped == {b"1", b"2"}


# What is remembered


def test_an_event_is_watched_between_the_marks_of_its_chunks_only() -> None:
    deliveries = Deliveries(snapshot(100))
    first, second, other = (deliveries.open(event) for event in (EVENT, EVENT, "order.v1"))
    assert deliveries.watched == {EVENT: (first, second), "order.v1": (other,)}
    deliveries.close(EVENT, first, snapshot(100))
    deliveries.close("order.v1", other, snapshot(100))
    assert deliveries.watched == {EVENT: (second,)}
    deliveries.close(EVENT, second, snapshot(100))
    assert deliveries.watched == {}


def test_a_snapshot_has_seen_transactions_forgotten() -> None:
    early = Chunks(snapshot(100, 90))
    early.delivered(100)
    early.delivered(101)
    assert early.deliveries.waits_for == 3
    early.seen(snapshot(102, 101))
    assert early.deliveries.waits_for == 1
    early.seen(snapshot(102))
    assert early.deliveries.waits_for == 0


def test_what_a_newer_snapshot_sees_still_discards_a_chunk_that_may_have_been_read_before() -> None:
    early = Chunks()
    early.delivered(100)
    early.open()
    early.seen(snapshot(102))
    assert early.deliveries.waits_for == 0
    assert early.close(snapshot(101, 100)).unseen == (100,)


def test_chunks_of_the_same_event_are_judged_each_from_its_own_low_mark() -> None:
    deliveries = Deliveries(snapshot(100))
    first = deliveries.open(EVENT)
    deliveries.delivered(100)
    deliveries.touched(EVENT, b"1")
    second = deliveries.open(EVENT)
    deliveries.delivered(101)
    deliveries.touched(EVENT, b"2")
    unseeing = snapshot(102, 100, 101)
    assert deliveries.close(EVENT, second, unseeing) == Verdict((100,), frozenset({b"2"}), False, frozenset())
    assert deliveries.close(EVENT, first, unseeing) == Verdict((), frozenset({b"1", b"2"}), False, frozenset())


def test_a_change_of_another_event_takes_nothing_out_of_a_chunk() -> None:
    busy = Chunks()
    busy.open()
    busy.delivered(100)
    busy.deliveries.touched("order.v1", b"1")
    busy.deliveries.touched_all("order.v1")
    assert busy.close(snapshot(101, 100)) == NOTHING


def test_the_chunks_own_snapshot_has_seen_transactions_forgotten() -> None:
    early = Chunks()
    early.delivered(100)
    early.open()
    early.close(snapshot(101))
    assert early.deliveries.waits_for == 0


# Transaction ids


def test_a_snapshot_is_read_as_postgres_prints_it() -> None:
    assert Snapshot.parse("10:20:10,14,15") == Snapshot(10, 20, frozenset({10, 14, 15}))
    assert Snapshot.parse("10:10:") == Snapshot(10, 10, frozenset())
    assert Snapshot.parse("18446744073709551610:18446744073709551614:").xmax == 2**64 - 2


@pytest.mark.parametrize("text", ["", "1", "1:2", "a:2:", "1:2:x", "1:2:3:4", "::"])
def test_anything_else_is_not_a_snapshot(text: str) -> None:
    with pytest.raises(ValueError):
        Snapshot.parse(text)


def test_a_snapshot_sees_what_had_ended_when_it_was_taken() -> None:
    taken = Snapshot(10, 20, frozenset({10, 14}))
    assert [xid for xid in range(8, 23) if taken.sees(xid)] == [8, 9, 11, 12, 13, 15, 16, 17, 18, 19]


@pytest.mark.parametrize(
    ("xmax", "xid", "wide"),
    [
        (800, 799, 799),
        (800, 2_000_000_000, 2_000_000_000),
        ((1 << 32) + 5, 0xFFFFFFFF, 0xFFFFFFFF),
        ((1 << 32) - 2, 3, (1 << 32) + 3),
        ((7 << 32) + 5, 4, (7 << 32) + 4),
        ((7 << 32) + 5, 0xFFFFFFF0, (6 << 32) + 0xFFFFFFF0),
        ((7 << 32) + 0xFFFFFFF0, 3, (8 << 32) + 3),
    ],
)
def test_a_transaction_id_of_the_log_is_widened_across_the_wraparound(xmax: int, xid: int, wide: int) -> None:
    assert snapshot(xmax).widen(xid) == wide


@given(st.integers(2**32, 2**63), st.integers(-(2**31) + 1, 2**31 - 1))
def test_every_id_within_two_thousand_million_is_widened_to_itself(xmax: int, distance: int) -> None:
    xid = xmax + distance
    assert snapshot(xmax).widen(xid & 0xFFFFFFFF) == xid


def test_a_transaction_from_before_the_wraparound_still_discards_the_chunk() -> None:
    wrapped = Chunks(snapshot((1 << 32) - 1))
    wrapped.delivered(0xFFFFFFFF)
    wrapped.open()
    assert wrapped.close(snapshot((1 << 32) + 5, 0xFFFFFFFF)).unseen == (0xFFFFFFFF,)


# Rows that were found by another query meanwhile


NEWER, OLDER = snapshot(101), snapshot(101, 99)
ONE, NONE = frozenset([b"1"]), frozenset[bytes]()


@pytest.mark.parametrize(
    ("own_to", "own", "to", "found_with", "dropped", "incomplete"),
    [
        (None, OLDER, None, NEWER, ONE, NONE),
        (None, NEWER, None, OLDER, NONE, NONE),
        (None, NEWER, None, NEWER, NONE, NONE),
        (None, OLDER, "billing", NEWER, ONE, ONE),  # the other sinks have nothing newer
        ("billing", OLDER, None, NEWER, ONE, NONE),
        ("billing", OLDER, "billing", NEWER, ONE, NONE),
        ("search", OLDER, "billing", NEWER, NONE, NONE),
    ],
)
def test_a_row_that_was_found_by_a_query_that_saw_more_leaves_the_chunk_where_its_consumers_have_it(
    own_to: str | None,
    own: Snapshot,
    to: str | None,
    found_with: Snapshot,
    dropped: frozenset[bytes],
    incomplete: frozenset[bytes],
) -> None:
    both = Chunks()
    both.open()
    another = both.deliveries.open(EVENT)
    both.deliveries.close(EVENT, another, found_with, to)
    both.deliveries.found(EVENT, [b"1"], found_with, to)
    verdict = both.deliveries.close(EVENT, both.window, own, own_to)
    assert (verdict.dropped, verdict.incomplete) == (dropped, incomplete)


@given(st.sets(st.integers(90, 110)), st.sets(st.integers(90, 110)), st.integers(100, 111), st.integers(100, 111))
def test_a_snapshot_sees_all_of_another_exactly_when_there_is_nothing_that_only_the_other_sees(
    first: set[int], second: set[int], first_xmax: int, second_xmax: int
) -> None:
    one = snapshot(first_xmax, *(xid for xid in first if xid < first_xmax))
    other = snapshot(second_xmax, *(xid for xid in second if xid < second_xmax))
    only_other = [xid for xid in range(80, 120) if other.sees(xid) and not one.sees(xid)]
    may_differ_by = set(range(min(one.xmax, other.xmax), other.xmax)) & other.in_progress
    assert one.sees_all_of(other) == (not only_other and not may_differ_by)
