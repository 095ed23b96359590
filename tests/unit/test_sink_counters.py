"""What a sink counts, and how far behind it takes itself to be."""

from __future__ import annotations

from sinks.compaction import compact
from sinks.counters import FRESH_SECONDS, Counters
from sinks.entries import Entries, Entry
from sinks.feed import Batch
from transforms.position import LSN, Position

NOW = 1_700_000_000.0


def upsert(number: int) -> Entry:
    words = [b"op", b"upsert", b"type", b"customer.v1", b"key", b'{"id":%d}' % number, b"state", b"{}"]
    return b"%d-1000000" % number, [*words, b"ts", b"1", b"tx", b"1"]


def delete(number: int) -> Entry:
    words = [b"op", b"delete", b"type", b"customer.v1", b"key", b'{"id":%d}' % number, b"ts", b"1", b"tx", b"1"]
    return b"%d-1000001" % number, words


def batch(*entries: Entry, committed_at: float | None = None, at_end: bool = True, published: int = 100) -> Batch:
    steps = compact(Entries(entries), "billing", {b"customer.v1": "customer.v1"})
    end = Position.parse(entries[-1][0].decode()) if entries else None
    return Batch("customer", steps, end, 1, committed_at, end, False, at_end, LSN(published), LSN(0), read_at=10.0)


def applied(*entries: Entry, parked: int = 0, committed_at: float = NOW - 0.3) -> Counters:
    counters, made = Counters(), batch(*entries, committed_at=committed_at)
    counters.read(made, NOW)
    counters.applied(made, parked, 10.2, NOW)
    return counters


def test_rows_are_counted_as_they_are_written_changes_of_a_key_merged() -> None:
    counters = applied(upsert(1), upsert(1), upsert(2), delete(3), parked=1)
    assert counters.rows == {("customer.v1", "upsert"): 2, ("customer.v1", "delete"): 1}
    assert (counters.batches, counters.parked) == (1, 1)


def test_a_batch_took_from_its_reading_to_its_commit() -> None:
    counters = applied(upsert(1))
    assert round(counters.apply_seconds.sum_seconds, 3) == 0.2
    assert round(counters.delay_seconds.sum_seconds, 3) == 0.3


def test_a_stream_read_to_its_end_is_not_behind_for_as_long_as_that_is_fresh() -> None:
    counters = Counters()
    counters.read(batch(), NOW)
    stream = counters.streams["customer"]
    assert stream.lag_seconds(NOW + 1) == 0.0
    assert stream.lag_seconds(NOW + FRESH_SECONDS + 1) == FRESH_SECONDS + 1  # it has not been looked at since


def test_a_batch_in_hand_is_lag_though_nothing_is_behind_it() -> None:
    counters = Counters()
    counters.read(batch(), NOW)
    counters.read(batch(upsert(1), committed_at=NOW), NOW)
    assert counters.streams["customer"].lag_seconds(NOW + 60) == 60


def test_under_load_the_lag_is_the_age_of_what_was_applied_last() -> None:
    stream = applied(upsert(1), committed_at=NOW - 2).streams["customer"]
    assert stream.lag_seconds(NOW) == 2


def test_a_sink_that_has_seen_nothing_yet_does_not_claim_to_know_its_lag() -> None:
    counters = Counters()
    counters.read(batch(upsert(1), committed_at=NOW), NOW)
    assert counters.streams["customer"].lag_seconds(NOW) is None


def test_bytes_behind_are_those_between_what_is_published_and_what_is_held() -> None:
    counters = Counters()
    counters.read(batch(published=500), NOW)
    counters.holds("customer", LSN(420))
    assert counters.streams["customer"].lag_bytes == 80
    counters.holds("customer", LSN(600))
    assert counters.streams["customer"].lag_bytes == 0
