"""What the stream's thread notes of changes of related rows."""

from __future__ import annotations

import json
from collections.abc import Sequence

import pytest

from cdc import rereads
from cdc.catalog import Column, Table
from cdc.event_mapping import MappedField
from cdc.messages import RelationMessage
from cdc.related.mapping import EmbedMapping
from cdc.related.touching import RelatedRoute, event_of, waiting_name
from cdc.translation import RELATED_TRUNCATED, TOO_MANY_RELATED
from tests.builders import INTEGER, SMALLINT, TEXT, column, delete, insert, transaction, truncate, update
from tests.unit.translation_harness import CUSTOMERS, ORDERS, Log, route
from transforms.explicit import UnchangedValues
from transforms.names import TableName
from transforms.position import LSN
from transforms.tuple_data import UNCHANGED

EVENT, NAME = "order.v1", "order.v1 customer"
ID, NAMED, NOTE = (
    Column(name, column(name, oid).type, not_null=False, generated=False)
    for name, oid in (("id", INTEGER), ("name", TEXT), ("note", TEXT))
)
TABLE = Table(
    1, TableName("public", "t"), "r", "p", (ID, NAMED, NOTE), ("id",), (), "d", frozenset({"id"}), (), 0,
)  # fmt: skip


def embed(*on: Column, columns: Sequence[Column] = (NAMED,)) -> EmbedMapping:
    fields = tuple(MappedField(each.name, each) for each in columns)
    return EmbedMapping(("customer",), TABLE, tuple((own, ID) for own in on), fields, (ID,), False, ())


@pytest.fixture
def log() -> Log:
    return related_log(embed(ID))


def related_log(mapped: EmbedMapping, *, also_an_event: bool = False) -> Log:
    """A log whose customers are part of the event of orders."""

    def resolve(message: RelationMessage) -> Sequence[RelatedRoute]:
        relation = [column(info.name, info.type_oid) for info in message.columns]
        return [RelatedRoute(EVENT, mapped, relation)] if message.relation_id == CUSTOMERS else []

    orders = [route(EVENT, is_read=True)]
    return Log({ORDERS: orders, CUSTOMERS: [route("customer.v1")] if also_an_event else []}, resolve_related=resolve)


def waiting(log: Log, name: str = NAME) -> set[str]:
    taken = log.translator.rereads.take(name, 100)
    return set() if taken is None else {key.decode() for key in taken.keys}


@pytest.mark.parametrize(
    ("change", "values"),
    [
        (insert(CUSTOMERS, b"1", b"Ada", None), {'{"id":1}'}),
        (update(CUSTOMERS, b"1", b"Ada", UNCHANGED), {'{"id":1}'}),
        (update(CUSTOMERS, b"2", b"Ada", None, key=[b"1", None, None]), {'{"id":1}', '{"id":2}'}),
        (update(CUSTOMERS, b"1", b"Bo", None, old=[b"1", b"Ada", None]), {'{"id":1}'}),
        (update(CUSTOMERS, b"1", b"Ada", b"x", old=[b"1", b"Ada", None]), set()),
        (update(CUSTOMERS, b"1", UNCHANGED, b"x", old=[b"1", b"Ada", None]), set()),
        (delete(CUSTOMERS, b"1", None, None), {'{"id":1}'}),
        (delete(CUSTOMERS, b"1", b"Ada", None, kind=b"O"), {'{"id":1}'}),
        (insert(CUSTOMERS, None, b"Ada", None), set()),
    ],
    ids=["insert", "update", "moved", "update of all told", "other column", "other column, unsent", "delete",
         "delete of all told", "of none"],
)  # fmt: skip
def test_a_change_notes_the_values_that_its_row_had_and_has(log: Log, change: bytes, values: set[str]) -> None:
    log.feed(transaction(50, change, xid=900, end=58))
    assert log.take() == []
    assert waiting(log) == values
    assert log.deliveries.waits_for == 1


def test_nothing_behind_the_change_counts_as_published_before_its_rows_are_read(log: Log) -> None:
    log.feed(transaction(50, insert(ORDERS, b"7", b"x", None), end=58))
    assert log.translator.rereads.take(EVENT, 9) is not None
    log = related_log(embed(ID))
    log.feed(transaction(40, end=48))
    log.feed(transaction(50, update(CUSTOMERS, b"1", b"Ada", None), end=58))
    log.feed(transaction(60, end=68))
    assert log.builder.end == LSN(48)
    taken = log.translator.rereads.take(NAME, 9)
    assert taken is not None
    log.translator.rereads_done(NAME, taken)
    log.feed(transaction(70, end=78))
    assert log.builder.end == LSN(78)


def test_several_columns_relate_together_and_one_that_is_null_to_nothing() -> None:
    log = related_log(embed(ID, NAMED))
    log.feed(transaction(50, insert(CUSTOMERS, b"1", b'a"b', None), insert(CUSTOMERS, b"2", None, None)))
    assert waiting(log) == {json.dumps({"id": 1, "name": 'a"b'}, separators=(",", ":"))}


def test_a_large_relating_value_that_was_not_sent_comes_from_the_old_row_or_stops_the_reader() -> None:
    log = related_log(embed(NAMED))
    log.feed(transaction(50, update(CUSTOMERS, b"1", UNCHANGED, None, key=[b"1", b"Ada", None])))
    assert waiting(log) == {'{"name":"Ada"}'}
    with pytest.raises(UnchangedValues, match="of name"):
        log.feed(transaction(60, update(CUSTOMERS, b"1", UNCHANGED, None)))


def test_a_table_may_be_an_event_and_part_of_another() -> None:
    log = related_log(embed(ID), also_an_event=True)
    frames = list(transaction(50, insert(CUSTOMERS, b"1", b"Ada", None), insert(CUSTOMERS, b"2", b"Bo", None)))
    log.feed_runs(frames)
    assert log.take() == ["customer 50-1000000 upsert 1", "customer 50-2000000 upsert 2 end"]
    assert waiting(log) == {'{"id":1}', '{"id":2}'}


def test_a_row_with_related_ones_is_read_and_its_delete_is_published_where_it_is(log: Log) -> None:
    log.feed(
        transaction(50, insert(ORDERS, b"1", b"x", None), update(ORDERS, b"3", b"x", None, key=[b"2", None, None]),
                    delete(ORDERS, b"4", None, None))
    )  # fmt: skip
    assert log.take() == ["order 50-2000000 delete 2", "order 50-3000000 delete 4 end"]
    assert waiting(log, EVENT) == {'{"id":1}', '{"id":3}'}


def test_related_rows_that_are_truncated_bring_a_snapshot_that_is_stored_with_the_transaction(log: Log) -> None:
    log.feed(transaction(50, truncate(CUSTOMERS)))
    log.take_batch()
    [note] = log.batches[-1].notes.values()
    run = json.loads(note)
    assert (run["event"], run["state"], run["reason"]) == (EVENT, "pending", RELATED_TRUNCATED.format("customer"))


def test_where_too_many_values_wait_a_snapshot_of_the_event_brings_the_rest(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rereads, "MOST_KEYS", 2)
    log = related_log(embed(ID))
    log.feed(transaction(50, *(insert(CUSTOMERS, b"%d" % number, b"Ada", None) for number in range(5))))
    log.take_batch()
    [note] = log.batches[-1].notes.values()
    assert json.loads(note)["reason"] == TOO_MANY_RELATED.format("customer")
    assert len(waiting(log)) == 2
    log.feed(transaction(60, insert(ORDERS, b"7", b"x", None)))
    assert waiting(log, EVENT) == set(), "the snapshot brings this one, too"


def test_the_event_is_told_from_the_name_that_values_wait_under() -> None:
    assert event_of(waiting_name(EVENT, "lines.product")) == event_of(EVENT) == EVENT


def test_columns_that_the_log_does_not_tell_yet_hide_no_change() -> None:
    later = Column("later", column("later", SMALLINT).type, not_null=False, generated=False)
    log = related_log(embed(ID, columns=(NAMED, later)))
    log.feed(transaction(50, update(CUSTOMERS, b"1", b"Ada", b"x", old=[b"1", b"Ada", None])))
    assert waiting(log) == {'{"id":1}'}
