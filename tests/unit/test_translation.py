"""From frames to entries: which entries a transaction gives, under which ids, and what may be published of it."""

from __future__ import annotations

import json

import pytest

from cdc.route import Route
from cdc.translation import TruncateHalts
from tests import builders
from tests.builders import begin, commit, delete, insert, message, transaction, truncate, update, xlog_data
from tests.unit.translation_harness import CUSTOMERS, LEAVES, ORDERS, UNMAPPED, Log, columns, encoder, route
from transforms.encoder import UnchangedValues
from transforms.position import LSN
from transforms.tuple_data import UNCHANGED

TIME_2026 = 820_454_400_000_000  # 2026-01-01 in microseconds since 2000


@pytest.fixture
def log() -> Log:
    """A reader that has been told of all relations."""
    return Log()


# Entries


def test_an_insert_becomes_an_upsert_of_wire_format_1(log: Log) -> None:
    log.feed(transaction(50, insert(CUSTOMERS, b"1", b"Ada", None), xid=7, time=TIME_2026))
    assert log.words("customer", "50-1000000") == [
        *(b"op", b"upsert", b"type", b"customer.v1", b"key", b'{"id":1}'),
        *(b"state", b'{"id":1,"name":"Ada","note":null}', b"ts", b"1767139200000000", b"tx", b"7", b"end", b"1"),
    ]


def test_an_update_becomes_an_upsert_and_a_delete_a_delete(log: Log) -> None:
    log.feed(transaction(50, update(CUSTOMERS, b"1", b"Ada", b"x"), delete(CUSTOMERS, b"1", None, None)))
    assert log.take() == ["customer 50-1000000 upsert 1", "customer 50-2000000 delete 1 end"]


@pytest.mark.parametrize("before", [{"key": [b"1", None, None]}, {"old": [b"1", b"Ada", b"x"]}])
def test_a_key_change_becomes_a_delete_and_an_upsert_of_one_message(log: Log, before: dict[str, list[bytes]]) -> None:
    log.feed(transaction(50, update(CUSTOMERS, b"2", b"Ada", b"x", **before)))
    assert log.take() == ["customer 50-1000000 delete 1", "customer 50-1000001 upsert 2 end"]


def test_an_old_row_with_the_same_key_is_no_key_change(log: Log) -> None:
    log.feed(transaction(50, update(CUSTOMERS, b"1", b"Ada", b"y", old=[b"1", b"Ada", b"x"])))
    assert log.take() == ["customer 50-1000000 upsert 1 end"]


def test_the_old_row_fills_in_an_unchanged_large_value(log: Log) -> None:
    log.feed(transaction(50, update(CUSTOMERS, b"1", b"Ada", UNCHANGED, old=[b"1", b"Ada", b"large"])))
    words = log.words("customer", "50-1000000")
    assert json.loads(words[7]) == {"id": 1, "name": "Ada", "note": "large"}
    assert b"partial" not in words


def test_an_unchanged_large_value_that_is_nowhere_is_named_as_absent(log: Log) -> None:
    log.feed(transaction(50, update(CUSTOMERS, b"1", b"Ada", UNCHANGED)))
    words = log.words("customer", "50-1000000")
    assert json.loads(words[7]) == {"id": 1, "name": "Ada"}
    assert words[-4:] == [b"partial", b'["note"]', b"end", b"1"]


def test_an_unchanged_large_value_halts_where_the_event_says_so() -> None:
    log = Log({CUSTOMERS: [route("customer.v1", unchanged_toast="halt")]})
    with pytest.raises(UnchangedValues, match="note"):
        log.feed(transaction(50, update(CUSTOMERS, b"1", b"Ada", UNCHANGED)))


def test_a_large_unchanged_key_is_taken_from_the_old_key(log: Log) -> None:
    log.feed(transaction(50, update(CUSTOMERS, UNCHANGED, b"Ada", None, key=[b"1", None, None])))
    assert log.take() == ["customer 50-1000000 upsert 1 end"]


def test_optional_fields_follow_in_the_order_of_the_format() -> None:
    log = Log({CUSTOMERS: [route("customer.v1", rev=2, note=builders.JSON)]})
    log.feed(transaction(50, update(CUSTOMERS, b"1", UNCHANGED, b"null")))
    words = log.words("customer", "50-1000000")
    optional = dict(zip(words[12::2], words[13::2], strict=True))
    assert list(optional.items()) == [
        (b"partial", b'["name"]'),
        (b"quoted", b'["note"]'),
        (b"rev", b"2"),
        (b"end", b"1"),
    ]


# Ids


def test_ids_count_every_message_of_the_transaction_also_those_that_give_no_entry(log: Log) -> None:
    messages = [
        insert(UNMAPPED, b"1"),
        message("somebody", b"..."),
        insert(CUSTOMERS, b"1", None, None),
        truncate(UNMAPPED),
        update(UNMAPPED, b"1"),
        delete(UNMAPPED, b"1"),
        insert(CUSTOMERS, b"2", None, None),
    ]
    log.feed(transaction(50, *messages))
    assert log.take() == ["customer 50-3000000 upsert 1", "customer 50-7000000 upsert 2 end"]


def test_ids_do_not_count_what_depends_on_the_connection(log: Log) -> None:
    type_name = b"Y\0\0\0\1public\0mood\0"
    again = builders.relation(CUSTOMERS, "customers", columns())
    log.feed(transaction(50, builders.origin("elsewhere"), type_name, again, insert(CUSTOMERS, b"1", None, None)))
    assert log.take() == ["customer 50-1000000 upsert 1 end"]


def test_each_transaction_counts_from_one(log: Log) -> None:
    for lsn in (50, 60):
        log.feed(transaction(lsn, insert(CUSTOMERS, b"1", None, None)))
    assert log.take() == ["customer 50-1000000 upsert 1 end", "customer 60-1000000 upsert 1 end"]


def test_events_that_share_a_stream_get_a_slot_each_and_others_their_own() -> None:
    routes = [route("customer.v1"), route("customer.v2", stream="customer"), route("person.v1")]
    log = Log({CUSTOMERS: routes})
    log.feed(transaction(50, update(CUSTOMERS, b"2", None, None, key=[b"1", None, None])))
    assert log.take() == [
        "customer 50-1000000 delete 1",
        "customer 50-1000001 upsert 2",
        "customer 50-1000002 delete 1",
        "customer 50-1000003 upsert 2 end",
        "person 50-1000000 delete 1",
        "person 50-1000001 upsert 2 end",
    ]


def test_a_truncate_gives_each_of_its_tables_a_slot_in_their_stream() -> None:
    log = Log({CUSTOMERS: [route("customer.v1", stream="shop")], ORDERS: [route("order.v1", stream="shop")]})
    log.feed(transaction(50, truncate(CUSTOMERS, UNMAPPED, ORDERS), insert(ORDERS, b"1", None, None)))
    assert log.take() == ["shop 50-1000000 truncate", "shop 50-1000001 truncate", "shop 50-2000000 upsert 1 end"]


def test_a_truncate_may_be_ignored_or_halt() -> None:
    ignoring = Log({CUSTOMERS: [route("customer.v1", truncate="ignore")]})
    ignoring.feed(transaction(50, truncate(CUSTOMERS), insert(CUSTOMERS, b"1", None, None)))
    assert ignoring.take() == ["customer 50-2000000 upsert 1 end"]
    halting = Log({CUSTOMERS: [route("customer.v1", truncate="halt")]})
    with pytest.raises(TruncateHalts, match=r"customer\.v1"):
        halting.feed(transaction(50, truncate(CUSTOMERS)))


def test_a_relation_that_is_announced_again_takes_its_new_columns(log: Log) -> None:
    log.feed(transaction(50, insert(CUSTOMERS, b"1", None, None)))
    log.routes[CUSTOMERS] = [Route("customer.v1", "customer", b"shop:customer", encoder(1))]
    log.feed(transaction(60, builders.relation(CUSTOMERS, "customers", columns()[:1]), insert(CUSTOMERS, b"2")))
    assert log.words("customer", "60-1000000")[7] == b'{"id":2}'


def test_the_relation_of_a_partition_without_an_event_takes_nothing_from_its_root(log: Log) -> None:
    log.feed(transaction(50, builders.relation(LEAVES, "leaf", columns()), insert(CUSTOMERS, b"1", None, None)))
    assert log.take() == ["customer 50-1000000 upsert 1 end"]


# What may be published


def test_a_full_batch_is_taken_in_the_middle_of_a_transaction_but_for_each_streams_newest_entry() -> None:
    log = Log(limit_count=3)
    log.feed(
        xlog_data(each) for each in (begin(50), *(insert(CUSTOMERS, b"%d" % id, None, None) for id in range(1, 5)))
    )
    assert log.published() == ["customer 50-1000000 upsert 1", "customer 50-2000000 upsert 2"]
    log.feed([xlog_data(commit(50))])
    assert log.take() == ["customer 50-3000000 upsert 3", "customer 50-4000000 upsert 4 end"]


def test_a_batch_in_the_middle_of_a_transaction_stands_before_it() -> None:
    log = Log(limit_count=2)
    log.feed(transaction(50, insert(CUSTOMERS, b"1", None, None), end=58))
    log.feed([xlog_data(begin(60)), *(xlog_data(insert(CUSTOMERS, b"2", None, None)) for _ in range(3))])
    assert {batch.end for batch in log.batches} == {58}
    log.feed([xlog_data(commit(60, end=68))])
    assert log.builder.end == 68


def test_a_transaction_without_entries_still_moves_the_position(log: Log) -> None:
    log.feed(transaction(50, insert(UNMAPPED, b"1"), end=99))
    assert (log.take(), log.builder.taken_end) == ([], 99)


def test_an_idle_keepalive_moves_the_position_forward_only_and_never_within_a_transaction(log: Log) -> None:
    log.feed(transaction(50, end=58))
    positions = []
    for wal_end in (70, 60):
        log.translator.idle_at(LSN(wal_end))
        positions.append(log.builder.end)
    log.feed([xlog_data(begin(80))])
    log.translator.idle_at(LSN(90))
    assert [*positions, log.builder.end] == [70, 70, 70]
