"""An event with `where`: what a change becomes, by what is known of the row before it and after it."""

from __future__ import annotations

import json
from collections.abc import Sequence

import pytest

from cdc.route import Route
from cdc.snapshot.visibility import Snapshot
from tests.builders import INTEGER, column, delete, insert, transaction, update
from tests.unit.translation_harness import CUSTOMERS, Log, stream_key
from transforms.encoder import UnchangedValues, compile_encoder
from transforms.position import LSN, Position
from transforms.row import RowFilter
from transforms.tuple_data import UNCHANGED, Value

RELATION = [column("id", INTEGER), column("name"), column("note")]
INSIDE, OUTSIDE = b"in", b"out"


def route(label: str = "customer.v1", *, fields: Sequence[str] = ("id", "name"), **options: str) -> Route:
    """Of customers whose note is `in`, which is not published."""
    encoder = compile_encoder(RELATION, fields, ["id"], RowFilter(("note",), lambda texts: texts[0] == INSIDE))
    return Route(label, "customer", stream_key("customer"), encoder, **options)  # type: ignore[arg-type]


@pytest.fixture
def log() -> Log:
    return Log({CUSTOMERS: [route()]})


def whole(note: bytes | None, id: bytes = b"1") -> list[Value]:
    return [id, b"Ada", note]


KEY = [b"1", None, None]


@pytest.mark.parametrize(
    ("change", "entries"),
    [
        (insert(CUSTOMERS, *whole(INSIDE)), ["upsert 1"]),
        (insert(CUSTOMERS, *whole(OUTSIDE)), []),
        (insert(CUSTOMERS, *whole(None)), []),
        # Nothing is known of the row before, which has kept its key.
        (update(CUSTOMERS, *whole(INSIDE)), ["upsert 1"]),
        (update(CUSTOMERS, *whole(OUTSIDE)), ["delete 1"]),
        (update(CUSTOMERS, *whole(None)), ["delete 1"]),
        (delete(CUSTOMERS, *KEY), ["delete 1"]),
        # Its key alone is known.
        (update(CUSTOMERS, *whole(INSIDE, b"2"), key=KEY), ["delete 1", "upsert 2"]),
        (update(CUSTOMERS, *whole(OUTSIDE, b"2"), key=KEY), ["delete 1"]),
        # All of it is.
        (update(CUSTOMERS, *whole(INSIDE), old=whole(INSIDE)), ["upsert 1"]),
        (update(CUSTOMERS, *whole(INSIDE), old=whole(OUTSIDE)), ["upsert 1"]),
        (update(CUSTOMERS, *whole(OUTSIDE), old=whole(INSIDE)), ["delete 1"]),
        (update(CUSTOMERS, *whole(OUTSIDE), old=whole(None)), []),
        (update(CUSTOMERS, *whole(INSIDE, b"2"), old=whole(INSIDE)), ["delete 1", "upsert 2"]),
        (update(CUSTOMERS, *whole(INSIDE, b"2"), old=whole(OUTSIDE)), ["upsert 2"]),
        (update(CUSTOMERS, *whole(OUTSIDE, b"2"), old=whole(INSIDE)), ["delete 1"]),
        (update(CUSTOMERS, *whole(OUTSIDE, b"2"), old=whole(OUTSIDE)), []),
        (delete(CUSTOMERS, *whole(INSIDE), kind=b"O"), ["delete 1"]),
        (delete(CUSTOMERS, *whole(OUTSIDE), kind=b"O"), []),
    ],
)
def test_a_change_is_told_as_far_as_consumers_may_have_had_the_row(log: Log, change: bytes, entries: list[str]) -> None:
    log.feed(transaction(50, change, insert(CUSTOMERS, b"9", b"Zoe", INSIDE)))
    told = [" ".join(line.split()[2:4]) for line in log.take()]
    assert told == [*entries, "upsert 9"]
    assert log.translator.rereads.events == ()


def test_rows_that_are_left_out_are_counted_and_take_no_slot(log: Log) -> None:
    log.routes[CUSTOMERS] = [route(), route("customer.v2")]
    log.feed(
        transaction(
            50,
            insert(CUSTOMERS, *whole(OUTSIDE)),
            update(CUSTOMERS, *whole(OUTSIDE)),
            insert(CUSTOMERS, *whole(INSIDE, b"2")),
        )
    )
    assert [line.split()[1] for line in log.take()] == ["50-2000000", "50-3000000"]


def test_runs_of_frames_give_what_single_frames_give() -> None:
    notes = [INSIDE, INSIDE, OUTSIDE, None, INSIDE, OUTSIDE, INSIDE, INSIDE]
    changes = [
        insert(CUSTOMERS, b"%d" % id, b"Ada", note) if id % 2 else update(CUSTOMERS, b"%d" % id, b"Ada", note)
        for id, note in enumerate(notes)
    ]
    frames = [*transaction(50, *changes)]
    for lsn, change in enumerate(changes, 60):
        frames += transaction(lsn, change)
    one_by_one, together = Log({CUSTOMERS: [route()]}), Log({CUSTOMERS: [route()]})
    one_by_one.feed(frames)
    together.feed_runs(frames)
    told = together.take()
    assert told == one_by_one.take()
    assert len(told) == 2 * len([note for id, note in enumerate(notes) if note == INSIDE or not id % 2])


def test_a_row_that_cannot_be_judged_is_read_again(log: Log) -> None:
    log.feed(transaction(50, update(CUSTOMERS, *whole(b""), key=KEY), end=60))
    log.take()
    log.feed(transaction(70, update(CUSTOMERS, b"1", b"Ada", UNCHANGED), end=80))
    assert log.take() == []
    assert log.builder.end == LSN(60)
    assert log.translator.rereads.events == ("customer.v1",)
    taken = log.translator.rereads.take("customer.v1", 10)
    assert taken is not None
    assert taken.keys == {b'{"id":1}'}


def test_a_row_with_an_old_one_that_tells_the_unsent_value_is_judged_by_it(log: Log) -> None:
    for old in (INSIDE, OUTSIDE):
        log.feed(transaction(50, update(CUSTOMERS, b"1", b"Ada", UNCHANGED, old=whole(old))))
    assert [line.split()[2] for line in log.take()] == ["upsert"]


def test_a_row_that_may_be_new_to_consumers_is_never_partial(log: Log) -> None:
    log.feed(transaction(50, update(CUSTOMERS, b"1", UNCHANGED, INSIDE)))
    assert log.take() == []
    assert log.translator.rereads.holds("customer.v1", b'{"id":1}')


def test_unchanged_values_that_halt_do_so_where_the_row_is_of_the_event() -> None:
    log = Log({CUSTOMERS: [route(unchanged_toast="halt")]})
    log.feed(transaction(50, update(CUSTOMERS, b"1", UNCHANGED, OUTSIDE)))
    assert [line.split()[2] for line in log.take()] == ["delete"]
    with pytest.raises(UnchangedValues):
        log.feed(transaction(70, update(CUSTOMERS, b"1", UNCHANGED, INSIDE)))


def test_a_row_that_left_stands_in_for_what_a_chunk_saw_of_it(log: Log) -> None:
    window = log.deliveries.open("customer.v1")
    log.feed(transaction(50, update(CUSTOMERS, *whole(OUTSIDE)), xid=700))
    log.feed(transaction(70, update(CUSTOMERS, b"2", b"Bo", UNCHANGED), xid=701))
    verdict = log.deliveries.close("customer.v1", window, Snapshot(700, 700, frozenset()))
    assert verdict.dropped == frozenset([b'{"id":1}', b'{"id":2}'])
    assert verdict.incomplete == frozenset([b'{"id":2}'])


def test_what_was_not_judged_before_a_restart_is_read_again_after_it() -> None:
    frames = transaction(50, update(CUSTOMERS, b"1", b"Ada", UNCHANGED))
    log = Log({CUSTOMERS: [route()]}, ends={"customer": Position(LSN(60), 0)})
    log.feed(frames)
    assert log.take() == []
    assert log.translator.rereads.holds("customer.v1", b'{"id":1}')


def test_a_row_read_again_that_is_not_of_the_event_is_deleted_at_the_mark(log: Log) -> None:
    from tests.unit.test_translation_marks import mark

    rows = log.routes[CUSTOMERS][0].encoder.lines([b"1\tAda\tin\n", b"2\tBo\tout\n", b"3\tCy\tin\n"])
    log.translator.marks["a-1"] = lambda: log.translator.entries.found(log.routes[CUSTOMERS][0], rows, b"reread", None)
    log.feed(transaction(50, mark("a-1")))
    words = log.words("customer", "50-1000001")
    assert words == [
        *(b"op", b"delete", b"type", b"customer.v1", b"key", b'{"id":2}', b"ts", words[7], b"tx", b"700"),
        *(b"origin", b"reread"),
    ]
    assert [line.split()[2] for line in log.published()] == ["upsert", "delete", "upsert"]
    assert json.loads(words[5]) == {"id": 2}
