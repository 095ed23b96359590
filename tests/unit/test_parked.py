"""Rows that a hook failed on: known until they are published, bounded, and stored with what they belong to."""

from __future__ import annotations

import json
from typing import Any

import pytest

from cdc import parked
from cdc.parked import Parked, Parking
from cdc.parked_report import parked_report
from cdc.route import Route
from cdc.snapshot.run import Run
from tests.builders import TEXT, column, delete, insert, message, transaction, truncate, update
from tests.unit.translation_harness import CUSTOMERS, PREFIX, Log, columns, stream_key
from transforms import wire
from transforms.encoder import compile_encoder
from transforms.hooks import hooked
from transforms.position import LSN, Position
from transforms.row import Failed

EVENT = "customer.v1"


def hook(state: dict[str, Any]) -> dict[str, Any] | None:
    if state["name"] == "draft":
        return None
    if state["name"] == "bad":
        raise KeyError(state["name"])
    return state


def route(**options: Any) -> Route:
    relation = [column(name, oid) for name, oid in columns(TEXT)]
    encoder = hooked(compile_encoder(relation, ["id", "name", "note"], ["id"]), lambda: hook, ["id"])
    return Route(EVENT, "customer", stream_key("customer"), encoder, is_hooked=True, **options)


@pytest.fixture
def log() -> Log:
    return Log({CUSTOMERS: [route()]})


def row(id: int, name: bytes) -> bytes:
    return insert(CUSTOMERS, b"%d" % id, name, None)


def stored(log: Log) -> dict[str, tuple[str, str]]:
    """What the batch so far stores of parked rows: error and position by field, nothing where it removes one."""
    raw = {field: json.loads(text or "{}") for field, text in log.builder.take().parked.items()}
    return {field: (each.get("error", ""), each.get("position", "")) for field, each in raw.items()}


def test_a_row_that_the_hook_fails_on_is_stored_with_its_transaction_and_the_others_are_published(log: Log) -> None:
    frames = list(transaction(50, row(1, b"bad"), row(2, b"Ada"), row(3, b"draft"), row(4, b"Bo")))
    log.feed(frames[:-1])
    log.take_batch()
    assert log.batches[0].parked == {}
    log.feed(frames[-1:])
    log.take_batch()
    batches = list(log.batches)
    assert [line.split()[1] for line in log.published()] == ["50-2000000", "50-4000000"]
    assert json.loads(batches[1].parked['customer.v1 {"id":1}']) == {
        "event": EVENT,
        "key": '{"id":1}',
        "position": "50-1000000",
        "error": "KeyError",
        "line": f"{__file__}:{hook.__code__.co_firstlineno + 4}",
        "at": 946684800.0,
    }


@pytest.mark.parametrize(
    "change",
    [
        update(CUSTOMERS, b"1", b"Ada", None),
        update(CUSTOMERS, b"1", b"draft", None),
        delete(CUSTOMERS, b"1", None, None),
        truncate(CUSTOMERS),
        update(CUSTOMERS, b"2", b"Ada", None, key=[b"1", None, None]),
    ],
)
def test_it_is_parked_no_more_once_the_row_is_published_or_gone(log: Log, change: bytes) -> None:
    log.feed(transaction(50, row(1, b"bad")))
    assert stored(log) == {'customer.v1 {"id":1}': ("KeyError", "50-1000000")}
    assert log.translator.parking.counts == {EVENT: 1}
    log.feed(transaction(60, change))
    assert stored(log) == {'customer.v1 {"id":1}': ("", "")}
    assert log.translator.parking.counts == {EVENT: 0}


def found(log: Log, lsn: int, *rows: tuple[int, bytes], to: str | None = None) -> None:
    """Rows that a query finds."""
    lines = [b"%d\t%b\t\\N\n" % each for each in rows]
    at = log.routes[CUSTOMERS][0]
    log.translator.marks["a"] = lambda: log.translator.entries.found(at, at.encoder.lines(lines), b"snapshot", to)
    log.feed(transaction(lsn, message(PREFIX, b'{"token":"a"}')))


def test_rows_that_a_query_finds_are_parked_and_published_alike(log: Log) -> None:
    found(log, 50, (1, b"bad"), (2, b"Ada"), (3, b"bad"))
    assert stored(log).keys() == {'customer.v1 {"id":1}', 'customer.v1 {"id":3}'}
    found(log, 60, (1, b"Ada"), to="billing")  # the others do not have it
    assert stored(log) == {}
    found(log, 70, (1, b"Ada"), (3, b"bad"))
    assert stored(log) == {'customer.v1 {"id":1}': ("", ""), 'customer.v1 {"id":3}': ("KeyError", "70-1000001")}


def test_a_row_that_is_parked_leaves_the_chunks_that_did_not_see_its_change(log: Log) -> None:
    window = log.deliveries.open(EVENT)
    log.feed(transaction(50, update(CUSTOMERS, b"1", b"bad", None)))
    assert not log.deliveries.close(EVENT, window, log.deliveries._newest).keeps(b'{"id":1}')


def test_what_may_have_been_published_before_is_read_again_whatever_the_hook_says_now() -> None:
    log = Log({CUSTOMERS: [route()]}, ends={"customer": Position(LSN(60), 1)})
    log.feed(transaction(50, row(1, b"bad"), row(2, b"Ada"), row(3, b"draft")))
    assert (log.take(), stored(log)) == ([], {})
    assert all(log.translator.rereads.holds(EVENT, b'{"id":%d}' % id) for id in (1, 2, 3))


def test_the_end_of_a_whole_snapshot_forgets_what_was_parked_before_it_began(log: Log) -> None:
    log.feed(transaction(50, row(1, b"bad"), row(2, b"bad")))
    found(log, 70, (2, b"bad"))
    log.take_batch()
    log.translator.marks["b"] = lambda: log.translator.run_marked(wire.RUN_END, Run("r", EVENT, begun="60-1000000"))
    log.feed(transaction(80, message(PREFIX, b'{"token":"b"}')))
    assert stored(log) == {'customer.v1 {"id":1}': ("", "")}


def test_rows_beyond_the_bound_are_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(parked, "MOST_ROWS", 2)
    fields: dict[str, str] = {}
    parking = Parking(fields.__setitem__)
    for number in range(1, 6):
        parking.park(EVENT, Failed(b'{"id":%d}' % number, "KeyError", "hooks.py:1"), f"{number}-1000000", 0.0)
    assert (len(fields), parking.counts) == (3, {EVENT: 5})
    again = Parked.parse({field.encode(): text.encode() for field, text in fields.items()})
    assert again.counts() == {EVENT: 5}
    (report,) = parked_report(again)
    assert (report["count"], [row["key"]["id"] for row in report["rows"]]) == (5, [1, 2])
    resumed = Parking(fields.__setitem__, again)
    resumed.run_ended(EVENT, "4-1000000")
    assert resumed.counts == {EVENT: 3}
    resumed.run_ended(EVENT, "9-1000000")
    assert (resumed.counts, set(fields.values())) == ({EVENT: 0}, {parked.GONE})


def test_what_is_told_of_a_failure_holds_neither_key_nor_value(log: Log, caplog: pytest.LogCaptureFixture) -> None:
    log.feed(transaction(50, row(1234, b"bad"), row(5678, b"bad")))
    (record,) = caplog.records
    assert f"{EVENT}: its transform raised KeyError in {__file__}" in record.getMessage()
    assert all(told not in caplog.text for told in ("1234", "5678", "bad"))
