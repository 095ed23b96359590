"""What waits to be read again, and an update that leaves a large value out where events are whole."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cdc import rereads, translation
from cdc.rereads import RereadQueue, Taken
from cdc.snapshot import sizing
from tests.builders import column, delete, insert, transaction, truncate, update
from tests.unit.translation_harness import CUSTOMERS, Log, columns, route
from transforms.encoder import RowEncoder, compile_encoder
from transforms.position import LSN, Position
from transforms.tuple_data import UNCHANGED

EVENT = "customer.v1"
LEFT_OUT = update(CUSTOMERS, b"1", b"Ada", UNCHANGED)


def whole_log(ends: dict[str, Position] | None = None) -> Log:
    return Log({CUSTOMERS: [route(EVENT, unchanged_toast="reread")]}, ends=ends)


def encoder_without_note() -> RowEncoder:
    made = [column(name, oid) for name, oid in columns()]
    return compile_encoder(made, ["id", "name"], ["id"])


def key(number: int) -> bytes:
    return b'{"id":%d}' % number


def take(queue: RereadQueue, limit: int = 100) -> Taken:
    taken = queue.take(EVENT, limit)
    assert taken is not None
    return taken


# What the translator makes of such an update


def test_an_update_that_leaves_a_value_out_is_not_published_and_its_row_is_read_again() -> None:
    log = whole_log()
    log.feed(transaction(50, end=58))
    log.feed(transaction(60, LEFT_OUT, insert(CUSTOMERS, b"2", b"Bo", b"x"), end=68))
    assert log.take() == ["customer 60-2000000 upsert 2 end"]
    assert take(log.translator.rereads).keys == {key(1)}
    assert log.builder.end == 58


def test_a_value_that_the_old_row_tells_is_filled_in_and_nothing_is_read() -> None:
    log = whole_log()
    log.feed(transaction(60, update(CUSTOMERS, b"1", b"Ada", UNCHANGED, old=[b"1", b"Bo", b"large"])))
    words = log.words("customer", "60-1000000")
    assert words[words.index(b"state") + 1] == b'{"id":1,"name":"Ada","note":"large"}'
    assert b"partial" not in words
    assert log.translator.rereads.events == ()


def test_an_old_key_fills_in_nothing_but_the_key() -> None:
    log = whole_log()
    log.feed(transaction(60, update(CUSTOMERS, UNCHANGED, b"Ada", UNCHANGED, key=[b"1", None, None])))
    assert log.take() == []
    assert take(log.translator.rereads).keys == {key(1)}


def test_a_row_that_waits_is_deleted_inserted_and_truncated_by_its_own_events_at_once() -> None:
    log = whole_log()
    log.feed(transaction(50, LEFT_OUT))
    log.feed(transaction(60, delete(CUSTOMERS, b"1", None, None)))
    log.feed(transaction(70, insert(CUSTOMERS, b"1", b"Bo", b"x")))
    log.feed(transaction(80, truncate(CUSTOMERS)))
    told = [line.split()[1:3] for line in log.take()]
    assert told == [["60-1000000", "delete"], ["70-1000000", "upsert"], ["80-1000000", "truncate"]]
    assert log.translator.rereads.holds(EVENT, key(1))


def test_a_whole_event_between_the_marks_is_not_overtaken_by_what_was_read_before_it() -> None:
    log = whole_log()
    log.feed(transaction(50, LEFT_OUT, xid=5))
    window = log.deliveries.open(EVENT)
    before = log.deliveries._newest
    log.feed(transaction(60, update(CUSTOMERS, b"1", b"Bo", b"x"), xid=6))
    verdict = log.deliveries.close(EVENT, window, before)
    assert not verdict.keeps(key(1))
    assert verdict.incomplete == frozenset()


def test_an_entry_has_the_same_id_whether_another_of_its_message_is_read_again_or_not() -> None:
    """An earlier connection has published the first of two entries of one message, and died before the second."""
    short = replace(route("customer.v2", stream="all"), encoder=encoder_without_note())
    ids = []
    for ends in ({}, {"all": Position(LSN(60), 1_000_000)}):
        log = Log({CUSTOMERS: [route(EVENT, stream="all"), short]}, ends=ends)
        log.feed(transaction(60, LEFT_OUT))
        ids.append([line.split()[1] for line in log.take()])
    assert ids == [["60-1000000", "60-1000001"], ["60-1000001"]]


# How it waits


def test_a_row_that_waits_is_not_queued_twice_but_one_that_is_being_read_is() -> None:
    queue = RereadQueue()
    queue.add(EVENT, {key(1)}, LSN(10))
    queue.add(EVENT, {key(1), key(2)}, LSN(20))
    taken = take(queue)
    assert taken.keys == {key(1), key(2)}
    assert taken.held_end == 10
    queue.add(EVENT, {key(1)}, LSN(30))
    assert queue.done(EVENT, taken) == []
    assert take(queue).keys == {key(1)}
    assert queue.held_end == 30


def test_whoever_reads_is_woken_when_an_event_begins_to_wait() -> None:
    queue = RereadQueue()
    assert not queue.work.is_set()
    queue.add(EVENT, {key(1)}, LSN(10))
    assert queue.work.is_set()


@given(st.lists(st.one_of(st.integers(0, 5), st.sampled_from(["take", "done", "leave one", "note"])), max_size=40))
def test_a_note_is_told_once_every_row_that_waited_before_it_is_done_and_in_its_order(steps: list[int | str]) -> None:
    queue = RereadQueue()
    waits: list[tuple[bytes, int]] = []  # what is to be done, and since when
    taken: Taken | None = None
    noted: list[tuple[int, str]] = []
    told: list[str] = []
    for clock, step in enumerate(steps, 1):
        if isinstance(step, int):
            queue.add(EVENT, {key(step)}, LSN(clock))
            waits.append((key(step), clock))
        elif step == "note":
            if queue.hold_note(EVENT, "run", str(clock)):
                noted.append((clock, str(clock)))
            else:
                assert waits == []
        elif step == "take" and taken is None and (taken := queue.take(EVENT, 3)):
            taken_at = clock
        elif step in ("done", "leave one") and taken is not None:
            left = {min(taken.keys)} if step == "leave one" else set[bytes]()
            waits = [(each, at) for each, at in waits if each not in taken.keys - left or at > taken_at]
            told += [state for _, state in queue.done(EVENT, taken, left)]
            taken = None
            blocked = min((at for _, at in waits), default=clock + 1)
            assert all(int(state) < blocked for state in told)
        assert (queue.held_end is None) == (not waits)
        assert queue.held_end is None or queue.held_end <= min(at for _, at in waits)
        assert all(queue.holds(EVENT, each) for each, _ in waits)
    while queue.events:
        told += [state for _, state in queue.done(EVENT, taken or take(queue, 2))]
        taken = None
    assert told == [state for _, state in noted]


def test_too_many_rows_are_left_to_a_snapshot_of_the_event_that_is_stored_with_what_it_stands_for(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(rereads, "MOST_KEYS", 2)
    log = whole_log()
    for number in range(1, 6):
        log.feed(transaction(number * 10 + 40, update(CUSTOMERS, b"%d" % number, b"Ada", UNCHANGED)))
    batch = log.builder.take()
    (run,) = map(json.loads, batch.notes.values())
    assert (run["event"], run["state"], run["where"], run["to"]) == (EVENT, "pending", None, None)
    assert run["reason"] == translation.TOO_MANY
    queue = log.translator.rereads
    log.translator.rereads_done(EVENT, taken := take(queue))
    assert taken.keys == {key(1), key(2)}
    log.feed(transaction(100, update(CUSTOMERS, b"7", b"Ada", UNCHANGED), end=108))
    assert (queue.events, log.builder.end) == ((), 108)
    queue.run_begins(EVENT)
    log.feed(transaction(110, update(CUSTOMERS, b"8", b"Ada", UNCHANGED)))
    assert take(queue).keys == {key(8)}


def test_rows_that_left_a_chunk_wait_however_many_there_are(monkeypatch: pytest.MonkeyPatch) -> None:
    """The run that they left would else end as if they were gone."""
    monkeypatch.setattr(rereads, "MOST_KEYS", 1)
    log = whole_log()
    log.translator.read_again(EVENT, {key(1), key(2), key(3)})
    assert take(log.translator.rereads).keys == {key(1), key(2), key(3)}


@pytest.mark.parametrize(
    ("limit", "rows", "size", "seconds", "following"),
    [
        (500, 500, 50_000, 0.001, 1_000),
        (1_500, 1_500, 150_000, 0.01, 2_000),
        (500, 80, 8_000_000, 0.01, 72),
        (500, 500, 500_000, 1.0, 50),
        (500, 1, 90_000_000, 1.0, 1),
        (300, 0, 0, 0.001, 300),
    ],
)
def test_as_many_rows_are_read_by_their_keys_as_fit_in_bytes_and_time(
    limit: int, rows: int, size: int, seconds: float, following: int
) -> None:
    assert sizing.next_keys(limit, rows, size, seconds, 8_000_000) == following
