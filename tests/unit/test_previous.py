"""Old states in entries: where the log tells them, in the same form as the state."""

from __future__ import annotations

from dataclasses import replace

import pytest

from cdc.route import Route
from tests.builders import JSON, TEXT, column, delete, insert, transaction, update
from tests.unit.translation_harness import CUSTOMERS, Log, columns, stream_key
from transforms import wire
from transforms.encoder import compile_encoder
from transforms.event import Delete, Upsert
from transforms.row import Field, RowFilter
from transforms.tuple_data import UNCHANGED, Value

OLD: tuple[Value, ...] = (b"1", b"Ada", b"old")


def route(filter_: RowFilter | None = None, note: int = TEXT, rev: int = 1) -> Route:
    relation = [column(name, oid) for name, oid in columns(note)]
    fields = [Field("id", "id"), Field("called", "name", b'"[redacted]"'), Field("note", "note")]
    encoder = compile_encoder(relation, fields, [Field("id", "id")], filter_)
    return Route("customer.v1", "customer", stream_key("customer"), encoder, rev=rev, previous=True)


def published(at: Route, change: bytes, id: str = "50-1000000") -> list[bytes]:
    log = Log({CUSTOMERS: [at]})
    log.feed(transaction(50, change))
    return log.words("customer", id)


def test_an_update_carries_the_old_state_with_its_names_and_masks_behind_the_revision() -> None:
    words = published(route(rev=2), update(CUSTOMERS, b"1", b"Bo", UNCHANGED, old=OLD))
    state = b'{"id":1,"called":"[redacted]","note":"old"}'
    assert words[words.index(b"state") + 1] == state
    assert words[-6:] == [b"rev", b"2", b"previous", state, b"end", b"1"]
    event = wire.read_words(b"50-1000000", words)
    assert isinstance(event, Upsert)
    assert event.previous == state


def test_a_delete_carries_it_and_so_do_both_entries_of_a_key_change() -> None:
    state = b'{"id":1,"called":"[redacted]","note":"old"}'
    event = wire.read_words(b"50-1000000", published(route(), delete(CUSTOMERS, *OLD, kind=b"O")))
    assert event == Delete("customer.v1", b'{"id":1}', event.position, True, None, state)
    moved = update(CUSTOMERS, b"2", b"Ada", b"new", old=OLD)
    events = [wire.read_words(id.encode(), published(route(), moved, id)) for id in ("50-1000000", "50-1000001")]
    assert [getattr(event, "previous", None) for event in events] == [state, state]


@pytest.mark.parametrize(
    "change",
    [
        insert(CUSTOMERS, b"1", b"Ada", b"new"),
        update(CUSTOMERS, b"1", b"Ada", b"new"),
        delete(CUSTOMERS, b"1", None, None),
    ],
)
def test_what_the_log_does_not_tell_is_not_made_up(change: bytes) -> None:
    assert b"previous" not in published(route(), change)


def test_the_old_state_of_a_row_that_was_not_of_the_event_is_not_told() -> None:
    only_new = RowFilter(("note",), lambda values: values[0] == b"new")
    entered = published(route(only_new), update(CUSTOMERS, b"1", b"Ada", b"new", old=OLD))
    assert (entered[1], b"previous" in entered) == (b"upsert", False)
    left = published(route(only_new), update(CUSTOMERS, b"1", b"Ada", b"old", old=(b"1", b"Ada", b"new")))
    assert (left[1], left[left.index(b"previous") + 1][-12:]) == (b"delete", b'note":"new"}')


def test_json_that_is_quoted_in_it_is_named() -> None:
    change = update(CUSTOMERS, b"1", b"Ada", b"{}", old=(b"1", b"Ada", b"null"))
    words = published(route(note=JSON), change)
    assert words[-6:-2] == [
        *(b"previous", b'{"id":1,"called":"[redacted]","note":"null"}'),
        *(b"previous_quoted", b'["note"]'),
    ]
    event = wire.read_words(b"50-1000000", words)
    assert isinstance(event, Upsert)
    assert (event.quoted, event.previous_quoted) == ((), ("note",))


def test_without_the_option_there_is_none() -> None:
    plain = replace(route(), previous=False)
    for change in (update(CUSTOMERS, b"1", b"Bo", b"new", old=OLD), delete(CUSTOMERS, *OLD, kind=b"O")):
        assert b"previous" not in published(plain, change)


def test_a_row_of_which_the_log_lacks_a_field_has_no_old_state() -> None:
    lacking = replace(route(), lacking=("added",))
    assert b"previous" not in published(lacking, delete(CUSTOMERS, *OLD, kind=b"O"))
