"""The visibility rule for chunks, case by case: no row is published that is older than what the stream has shown."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cdc.chunking import Snapshot, Verdict, Window

NOTHING = Verdict((), frozenset(), False, frozenset())
EVENT = "customer.v1"


def snapshot(xmax: int, *in_progress: int) -> Snapshot:
    return Snapshot(min([xmax, *in_progress]), xmax, frozenset(in_progress))


def window(at_connect: Snapshot | None = None) -> Window:
    return Window(snapshot(100) if at_connect is None else at_connect)


def touch(window: Window, xid: int, *keys: bytes, whole: bool = True) -> None:
    window.delivered(xid)
    for key in keys:
        window.touched(key, whole=whole)


# Before the low mark


def test_a_chunk_that_nothing_meets_is_published_whole() -> None:
    quiet = window()
    quiet.open(EVENT)
    verdict = quiet.close(snapshot(100))
    assert verdict == NOTHING
    assert verdict.keeps(b"1")


def test_a_transaction_delivered_before_the_low_mark_and_seen_lets_the_chunk_pass() -> None:
    early = window()
    early.delivered(100)
    early.open(EVENT)
    assert early.close(snapshot(101)) == NOTHING


@pytest.mark.parametrize("unseeing", [snapshot(100), snapshot(101, 100), snapshot(105, 100, 103)])
def test_a_transaction_delivered_before_the_low_mark_and_unseen_discards_the_chunk(unseeing: Snapshot) -> None:
    early = window()
    early.delivered(100)
    early.open(EVENT)
    assert early.close(unseeing).unseen == (100,)


def test_the_chunk_after_a_discarded_one_is_published_once_the_transaction_is_seen() -> None:
    early = window()
    early.delivered(100)
    early.open(EVENT)
    early.close(snapshot(101, 100))
    early.open(EVENT)
    assert early.close(snapshot(101)) == NOTHING


def test_a_transaction_in_progress_at_connect_and_still_unseen_discards_the_chunk() -> None:
    reconnected = window(snapshot(100, 90))
    reconnected.open(EVENT)
    assert reconnected.close(snapshot(101, 90)).unseen == (90,)


def test_a_transaction_in_progress_at_connect_that_is_seen_lets_the_chunk_pass() -> None:
    reconnected = window(snapshot(100, 90))
    reconnected.open(EVENT)
    assert reconnected.close(snapshot(101)) == NOTHING


def test_a_transaction_in_progress_at_connect_and_delivered_between_the_marks_only_takes_its_keys_out() -> None:
    reconnected = window(snapshot(100, 90))
    reconnected.open(EVENT)
    touch(reconnected, 90, b"1")
    assert reconnected.close(snapshot(101, 90)) == Verdict((), frozenset({b"1"}), False, frozenset())


# Between the marks


def test_a_transaction_delivered_between_the_marks_and_unseen_takes_its_keys_out_of_the_chunk() -> None:
    busy = window()
    busy.open(EVENT)
    touch(busy, 100, b"1", b"2")
    touch(busy, 101, b"3")
    verdict = busy.close(snapshot(101, 100))
    assert verdict == Verdict((), frozenset({b"1", b"2", b"3"}), False, frozenset())
    assert [verdict.keeps(key) for key in (b"1", b"3", b"4")] == [False, False, True]


def test_a_transaction_delivered_between_the_marks_and_seen_leaves_its_rows_in_the_chunk() -> None:
    busy = window()
    busy.open(EVENT)
    touch(busy, 100, b"1")
    assert busy.close(snapshot(101)) == NOTHING


def test_a_transaction_delivered_between_the_marks_and_unseen_discards_the_next_chunk() -> None:
    busy = window()
    busy.open(EVENT)
    touch(busy, 100, b"1")
    busy.close(snapshot(101, 100))
    busy.open(EVENT)
    assert busy.close(snapshot(102, 100)).unseen == (100,)


def test_a_transaction_after_a_low_mark_whose_chunk_was_given_up_counts_as_before_the_next_one() -> None:
    busy = window()
    busy.open(EVENT)
    touch(busy, 100, b"1")
    busy.open(EVENT)
    assert busy.close(snapshot(101, 100)).unseen == (100,)


def test_a_truncate_between_the_marks_and_unseen_takes_every_row_out_of_the_chunk() -> None:
    emptied = window()
    emptied.open(EVENT)
    emptied.delivered(100)
    emptied.touched_all()
    assert not emptied.close(snapshot(101, 100)).keeps(b"1")


def test_a_truncate_between_the_marks_and_seen_leaves_the_rows_that_came_after_it() -> None:
    emptied = window()
    emptied.open(EVENT)
    emptied.delivered(100)
    emptied.touched_all()
    assert emptied.close(snapshot(101)).keeps(b"1")


def test_a_key_whose_own_event_was_no_whole_row_must_be_read_again() -> None:
    partial = window()
    partial.open(EVENT)
    touch(partial, 100, b"1", whole=False)
    touch(partial, 101, b"2")
    assert partial.close(snapshot(102, 100, 101)).incomplete == {b"1"}


def test_a_partial_event_that_the_chunk_has_seen_needs_nothing_more() -> None:
    partial = window()
    partial.open(EVENT)
    touch(partial, 100, b"1", whole=False)
    assert partial.close(snapshot(101)) == NOTHING


def test_the_same_transaction_id_delivered_again_keeps_all_its_keys() -> None:
    repeated = window()
    repeated.open(EVENT)
    touch(repeated, 100, b"1")
    touch(repeated, 100, b"2")
    assert repeated.close(snapshot(101, 100)).dropped == {b"1", b"2"}


# What is remembered


def test_the_event_is_watched_between_its_marks_only() -> None:
    watched = window()
    events = [watched.event]
    watched.open(EVENT)
    events.append(watched.event)
    watched.close(snapshot(100))
    assert [*events, watched.event] == [None, EVENT, None]


def test_a_snapshot_has_seen_transactions_forgotten() -> None:
    early = window(snapshot(100, 90))
    early.delivered(100)
    early.delivered(101)
    assert early.waits_for == 3
    early.seen(snapshot(102, 101))
    assert early.waits_for == 1
    early.seen(snapshot(102))
    assert early.waits_for == 0


def test_a_snapshot_between_the_marks_is_ignored_for_it_may_be_newer_than_the_chunks() -> None:
    early = window()
    early.delivered(100)
    early.open(EVENT)
    early.seen(snapshot(102))
    assert early.close(snapshot(101, 100)).unseen == (100,)


def test_the_chunks_own_snapshot_has_seen_transactions_forgotten() -> None:
    early = window()
    early.delivered(100)
    early.open(EVENT)
    early.close(snapshot(101))
    assert early.waits_for == 0


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
    wrapped = window(snapshot((1 << 32) - 1))
    wrapped.delivered(0xFFFFFFFF)
    wrapped.open(EVENT)
    assert wrapped.close(snapshot((1 << 32) + 5, 0xFFFFFFFF)).unseen == (0xFFFFFFFF,)
