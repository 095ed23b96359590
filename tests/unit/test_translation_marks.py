"""Logical messages that come back, rows that are read again, and frames that no walsender sends."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cdc.rereads import Taken
from tests.builders import begin, commit, delete, insert, message, transaction, truncate, update, xlog_data
from tests.unit.translation_harness import CUSTOMERS, PREFIX, UNANNOUNCED, Log, encoder, route
from transforms import wire
from transforms.encoder import Row
from transforms.errors import StatecastError
from transforms.position import LSN, Position
from transforms.tuple_data import UNCHANGED, MalformedMessage

EVENT = "customer.v1"


def mark(token: object, prefix: str = PREFIX) -> bytes:
    return message(prefix, json.dumps({"token": token}).encode())


@pytest.fixture
def log() -> Log:
    return Log()


def counted(log: Log, token: str) -> list[int]:
    """Remembers a mark; the list tells at which position it came."""
    came: list[int] = []
    log.translator.marks[token] = lambda: came.append(log.translator.hand.commit_lsn)
    return came


# Marks


def test_our_own_mark_is_acted_on_once(log: Log) -> None:
    came = counted(log, "a-1")
    for lsn in (50, 60):
        log.feed(transaction(lsn, mark("a-1")))
    assert (came, log.translator.marks) == ([50], {})


def test_our_own_mark_that_is_not_in_memory_is_counted_and_otherwise_ignored(log: Log) -> None:
    log.feed(transaction(50, mark("of an earlier connection"), insert(CUSTOMERS, b"1", None, None)))
    assert log.take() == ["customer 50-2000000 upsert 1 end"]


@pytest.mark.parametrize(
    "foreign",
    [
        mark("a-1", prefix="somebody"),
        mark("a-1", prefix=PREFIX + "2"),
        mark(["a-1"]),
        mark(None),
        message(PREFIX, b""),
        message(PREFIX, b"\xff"),
        message(PREFIX, b'"a-1"'),
        message(PREFIX, b"[]"),
        message(PREFIX, b'{"other":"a-1"}'),
    ],
)
def test_a_mark_of_somebody_else_is_counted_and_otherwise_ignored(log: Log, foreign: bytes) -> None:
    came = counted(log, "a-1")
    log.feed(transaction(50, foreign, insert(CUSTOMERS, b"1", None, None)))
    assert came == []
    assert log.take() == ["customer 50-2000000 upsert 1 end"]


def test_a_message_outside_of_transactions_is_neither_counted_nor_acted_on(log: Log) -> None:
    came = counted(log, "a-1")
    content = json.dumps({"token": "a-1"}).encode()
    log.feed([xlog_data(message(PREFIX, content, transactional=False))])
    log.feed(transaction(50, insert(CUSTOMERS, b"1", None, None)))
    assert came == []
    assert log.take() == ["customer 50-1000000 upsert 1 end"]


def test_rows_found_by_a_query_take_the_ids_of_the_mark_they_are_published_at(log: Log) -> None:
    def publish() -> None:
        rows = encoder().lines([b"1\tAda\t\\N\n", b"2\tAda\t\\N\n"])
        log.translator.entries.found(log.routes[CUSTOMERS][0], rows, b"snapshot", None)

    log.translator.marks["a-1"] = publish
    log.feed(transaction(50, message("somebody", b""), mark("a-1")))
    assert log.take() == ["customer 50-2000000 upsert 1 snapshot", "customer 50-2000001 upsert 2 snapshot end"]


def test_a_row_for_one_sink_says_so_behind_all_other_fields(log: Log) -> None:
    row, at = Row(b'{"id":1}', b'{"id":1,"note":"null"}', (), ("note",)), route(EVENT, rev=3)
    log.translator.marks["a-1"] = lambda: log.translator.entries.found(at, [row], b"reread", "billing")
    log.feed(transaction(50, mark("a-1")))
    words = log.words("customer", "50-1000000")
    assert words[12:] == [
        *(b"origin", b"reread", b"quoted", b'["note"]', b"rev", b"3", b"to", b"billing", b"end", b"1"),
    ]


def test_a_mark_in_a_stream_is_an_entry_without_a_row(log: Log) -> None:
    log.translator.marks["a-1"] = lambda: log.translator.entries.mark("customer", wire.RUN_BEGIN, {"run": "r"}, None)
    log.feed(transaction(50, mark("a-1")))
    assert log.take() == ["customer 50-1000000 mark run-begin end"]


# What is remembered for chunks


def test_only_transactions_with_rows_of_mapped_tables_are_remembered(log: Log) -> None:
    log.feed(transaction(50, mark("x"), xid=5))
    before = log.deliveries.waits_for
    log.feed(transaction(60, insert(CUSTOMERS, b"1", None, None), insert(CUSTOMERS, b"2", None, None), xid=6))
    log.feed(transaction(70, truncate(CUSTOMERS), xid=7))
    assert (before, log.deliveries.waits_for) == (0, 2)


def test_both_keys_of_a_key_change_leave_the_chunk_of_their_event_and_no_other(log: Log) -> None:
    unseen = log.deliveries._newest
    customers, orders = log.deliveries.open(EVENT), log.deliveries.open("order.v1")
    log.feed(transaction(60, update(CUSTOMERS, b"2", None, None, key=[b"1", None, None])))
    assert log.deliveries.close(EVENT, customers, unseen).dropped == {b'{"id":1}', b'{"id":2}'}
    assert log.deliveries.close("order.v1", orders, unseen).dropped == frozenset()


def test_a_partial_row_leaves_its_chunk_and_must_be_read_again(log: Log) -> None:
    window = log.deliveries.open(EVENT)
    log.feed(transaction(60, update(CUSTOMERS, b"1", b"Ada", UNCHANGED)))
    assert log.deliveries.close(EVENT, window, log.deliveries._newest).incomplete == {b'{"id":1}'}


@pytest.mark.parametrize("whole_first", [True, False])
def test_a_row_whose_events_are_whole_together_leaves_its_chunk_and_need_not_be_read_again(
    log: Log, whole_first: bool
) -> None:
    window = log.deliveries.open(EVENT)
    changes = [update(CUSTOMERS, b"1", b"Ada", b"x"), update(CUSTOMERS, b"1", b"Bo", UNCHANGED)]
    log.feed(transaction(60, changes[not whole_first], xid=6))
    log.feed(transaction(70, changes[whole_first], xid=7))
    verdict = log.deliveries.close(EVENT, window, log.deliveries._newest)
    assert verdict.dropped == {b'{"id":1}'}
    assert verdict.incomplete == frozenset()


def test_a_change_that_waits_to_be_read_again_takes_nothing_out_of_a_chunk(log: Log) -> None:
    log.translator.read_again(EVENT, {b'{"id":1}'})
    window = log.deliveries.open(EVENT)
    log.feed(transaction(60, update(CUSTOMERS, b"1", b"Ada", UNCHANGED)))
    assert log.deliveries.close(EVENT, window, log.deliveries._newest).dropped == frozenset()


# Rows that are read again


@pytest.mark.parametrize(("lsn", "published"), [(59, []), (60, []), (61, ["customer 61-1000000 upsert 1 end"])])
def test_a_change_that_an_earlier_connection_may_have_had_read_again_is_read_again(
    lsn: int, published: list[str]
) -> None:
    log = Log(ends={"customer": Position(LSN(60), 1_000_000)})
    log.feed(transaction(lsn, update(CUSTOMERS, b"1", b"Ada", UNCHANGED)))
    assert log.take() == published
    assert log.translator.rereads.events == (() if published else (EVENT,))


def moved_without_its_large_value(lsn: int, id: bytes = b"2") -> list[bytes]:
    return list(transaction(lsn, update(CUSTOMERS, id, b"Ada", UNCHANGED, key=[b"1", None, None])))


def test_a_key_change_without_its_large_value_deletes_now_and_is_read_again(log: Log) -> None:
    log.feed(moved_without_its_large_value(50))
    assert log.take() == ["customer 50-1000000 delete 1 end"]
    assert log.translator.rereads.events == (EVENT,)
    assert wanted(log) == {b'{"id":2}'}


def test_nothing_behind_a_row_to_be_read_again_counts_as_published(log: Log) -> None:
    log.feed(transaction(50, end=58))
    log.feed(moved_without_its_large_value(60))
    log.feed(transaction(70, insert(CUSTOMERS, b"9", None, None), end=78))
    log.translator.idle_at(log.translator.latest_end + 100)  # type: ignore[arg-type]
    assert log.builder.end == 58


def wanted(log: Log) -> set[bytes]:
    """The rows that wait to be read again."""
    keys = {b'{"id":%d}' % number for number in range(100)}
    return {key for key in keys if log.translator.rereads.holds(EVENT, key)}


def take(log: Log, limit: int = 10) -> Taken:
    """The oldest rows that wait, which are being read from now on."""
    taken = log.translator.rereads.take(EVENT, limit)
    assert taken is not None
    return taken


def test_the_position_is_released_by_the_transaction_that_publishes_the_rows(log: Log) -> None:
    log.feed(transaction(50, end=58))
    log.feed(moved_without_its_large_value(60))
    taken = take(log)
    log.translator.marks["a-1"] = lambda: log.translator.rereads_done(EVENT, taken)
    frames = list(transaction(80, mark("a-1"), end=88))
    log.feed(frames[:-1])
    before = log.builder.end
    log.feed(frames[-1:])
    assert (before, log.builder.end) == (58, 88)


def test_the_oldest_row_that_still_waits_holds_the_position(log: Log) -> None:
    log.feed(transaction(50, end=58))
    log.feed(moved_without_its_large_value(60, b"2"))
    log.feed(moved_without_its_large_value(70, b"3"))
    log.translator.rereads_done(EVENT, take(log, 1))
    log.feed(transaction(80, end=88))
    assert (wanted(log), log.builder.end) == ({b'{"id":3}'}, 68)


def test_a_row_that_one_transaction_has_read_again_twice_waits_no_more_when_it_is_published(log: Log) -> None:
    log.translator.read_again(EVENT, {b"1"})
    log.translator.read_again(EVENT, {b"1", b"2"})
    log.translator.rereads_done(EVENT, take(log))
    assert not log.translator.rereads.holds(EVENT, b"1")
    assert not log.translator.rereads.holds(EVENT, b"2")


def test_the_rows_of_a_large_transaction_are_read_in_parts_and_hold_its_position_until_the_last_one(log: Log) -> None:
    log.feed(transaction(50, end=58))
    log.translator.read_again(EVENT, {b"%d" % number for number in range(25)})
    log.translator.note(EVENT, "r", "done")
    log.feed(transaction(60, end=68))
    parts = []
    while log.translator.rereads.events:
        taken = take(log)
        parts.append(taken.keys)
        assert log.builder.end == 58
        log.translator.marks["a-1"] = lambda taken=taken: log.translator.rereads_done(EVENT, taken)  # type: ignore[misc]
        assert log.builder.take().notes == {}
        log.feed(transaction(80 + len(parts), mark("a-1"), end=88 + len(parts)))
    assert [len(part) for part in parts] == [10, 10, 5]
    assert len(frozenset().union(*parts)) == 25
    assert log.builder.take().notes == {"r": "done"}
    assert log.builder.end == 91


def test_rows_that_could_not_be_read_after_all_hold_the_oldest_position_and_what_is_noted(log: Log) -> None:
    """The change that took the row out of its chunk is published as part of a row that nobody has yet."""
    log.feed(transaction(50, end=58))
    log.feed(moved_without_its_large_value(60, b"2"))
    log.feed(moved_without_its_large_value(70, b"3"))
    log.translator.note(EVENT, "r", "done")
    taken = take(log)
    log.translator.marks["a-1"] = lambda: log.translator.rereads_done(EVENT, taken, {b'{"id":3}'})
    log.feed(transaction(80, mark("a-1"), end=88))
    batch = log.builder.take()
    assert (batch.end, batch.notes) == (58, {})
    assert [log.translator.rereads.holds(EVENT, b'{"id":%d}' % id) for id in (2, 3)] == [False, True]

    keys, taken = wanted(log), take(log)
    log.translator.marks["a-2"] = lambda: log.translator.rereads_done(EVENT, taken)
    log.feed(transaction(90, mark("a-2"), end=98))
    batch = log.builder.take()
    assert (keys, batch.end, batch.notes) == ({b'{"id":3}'}, 98, {"r": "done"})


def test_events_wait_for_each_other_where_they_share_a_cause() -> None:
    log = Log({CUSTOMERS: [route(EVENT), route("person.v1")]})
    log.feed(moved_without_its_large_value(60))
    assert list(log.translator.rereads.events) == [EVENT, "person.v1"]
    log.translator.rereads_done(EVENT, take(log))
    log.feed(transaction(80, end=88))
    assert set(log.translator.rereads.events) == {"person.v1"}
    assert log.builder.end == 10


# How far a snapshot is


def test_a_run_is_as_far_as_its_chunks_are_published(log: Log) -> None:
    log.translator.marks["a-1"] = lambda: log.translator.note(EVENT, "r", "behind 9")
    frames = list(transaction(50, mark("a-1")))
    log.feed(frames[:-1])
    assert log.builder.take().notes == {}
    log.feed(frames[-1:])
    assert log.builder.take().notes == {"r": "behind 9"}


def test_a_run_is_no_further_than_rows_that_left_its_chunk_and_are_to_be_read_again(log: Log) -> None:
    def high_mark() -> None:
        log.translator.read_again(EVENT, {b'{"id":1}'})
        log.translator.note(EVENT, "r", "behind 9")

    log.translator.marks["a-1"] = high_mark
    log.translator.marks["a-2"] = lambda: log.translator.note(EVENT, "r", "behind 19")
    log.translator.marks["a-3"] = lambda: log.translator.note("order.v1", "o", "behind 5")
    log.feed([*transaction(50, mark("a-1")), *transaction(60, mark("a-2")), *transaction(70, mark("a-3"))])
    assert log.builder.take().notes == {"o": "behind 5"}
    taken = take(log)
    log.translator.marks["a-4"] = lambda: log.translator.rereads_done(EVENT, taken)
    log.feed(transaction(80, mark("a-4")))
    assert log.builder.take().notes == {"r": "behind 19"}


def test_a_run_that_begins_while_the_end_of_the_one_before_is_not_stored_yet_leaves_that_as_it_is(log: Log) -> None:
    log.feed(moved_without_its_large_value(40))
    for lsn, run, state in ((50, "r", "done"), (60, "s", "running"), (70, "s", "behind 9")):
        log.translator.marks["a-1"] = lambda run=run, state=state: log.translator.note(EVENT, run, state)  # type: ignore[misc]
        log.feed(transaction(lsn, mark("a-1")))
    assert log.builder.take().notes == {}
    taken = take(log)
    log.translator.marks["a-2"] = lambda: log.translator.rereads_done(EVENT, taken)
    log.feed(transaction(80, mark("a-2")))
    assert log.builder.take().notes == {"r": "done", "s": "behind 9"}


# What no walsender sends


@pytest.mark.parametrize(
    "frames",
    [
        [insert(CUSTOMERS, b"1", None, None)],
        [update(CUSTOMERS, b"1", None, None)],
        [delete(CUSTOMERS, b"1", None, None)],
        [commit(50)],
        [begin(50), begin(60)],
        [begin(50), commit(60)],
        [begin(50), commit(50), commit(50)],
        [begin(50) + b"\0"],
        [begin(50), commit(50)[:-1]],
        [begin(50), insert(UNANNOUNCED, b"1")],
        [begin(50), insert(CUSTOMERS, b"1", None)],
        [begin(50), insert(CUSTOMERS, b"1", None, None) + b"\0"],
        [begin(50), delete(CUSTOMERS, b"1", None, None) + b"\0"],
        [begin(50), delete(CUSTOMERS, b"1", None, None, kind=b"N")],
        [begin(50), update(CUSTOMERS, b"1", None, None).replace(b"N", b"K", 1)],
        [begin(50), b"S\0\0\0\1\1"],
        [b""],
    ],
)
def test_a_sequence_that_cannot_be_is_refused(log: Log, frames: list[bytes]) -> None:
    *fine, last = map(xlog_data, frames)
    log.feed(fine)
    with pytest.raises(MalformedMessage):
        log.feed([last])


@pytest.mark.parametrize("frames", [[truncate(CUSTOMERS)], [mark("a-1")], [begin(50), truncate(UNANNOUNCED)]])
def test_a_truncate_or_message_that_cannot_be_is_refused_too(log: Log, frames: list[bytes]) -> None:
    with pytest.raises(MalformedMessage):
        log.feed(map(xlog_data, frames))


ROWS: dict[str, bytes] = {
    "insert": insert(CUSTOMERS, b"1", b"Ada", None),
    "update": update(CUSTOMERS, b"1", b"Ada", None),
    "update with key": update(CUSTOMERS, b"1", b"Ada", None, key=[b"2", None, None]),
    "update with old row": update(CUSTOMERS, b"1", b"Ada", UNCHANGED, old=[b"1", b"Bo", b"x"]),
    "delete": delete(CUSTOMERS, b"1", None, None),
    "delete with old row": delete(CUSTOMERS, b"1", b"Ada", None, kind=b"O"),
}


@pytest.mark.parametrize("name", ROWS)
def test_every_truncation_of_a_row_is_refused(name: str) -> None:
    for size in range(len(ROWS[name])):
        log = Log()
        log.feed([xlog_data(begin(50))])
        with pytest.raises(MalformedMessage):
            log.feed([xlog_data(ROWS[name][:size])])


@given(st.sampled_from(sorted(ROWS)), st.integers(0, 100), st.integers(1, 255))
def test_a_damaged_byte_of_a_row_is_refused_or_published_and_no_other_error(name: str, at: int, flip: int) -> None:
    log, data = Log(), bytearray(ROWS[name])
    first = 6  # behind the relation's id, which might become that of an unmapped one
    data[first + at % (len(data) - first)] ^= flip
    try:
        log.feed(transaction(50, bytes(data)))
    except StatecastError:
        return
    assert log.take()
