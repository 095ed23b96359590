"""Wire format 1: what is written is read back, in the documented order, and anything else is refused."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from transforms import wire
from transforms.errors import MalformedEntry
from transforms.event import Delete, Event, Mark, Truncate, Upsert
from transforms.position import Position

ID = "24337-1000000"
AT = Position.parse(ID)
UPSERT = wire.upsert_words(b"customer.v1", b'{"id":1}', b'{"id":1,"name":"Ada"}', b"1700000000000000", b"755")


def fields(words: list[bytes]) -> dict[bytes, bytes]:
    return dict(zip(words[::2], words[1::2], strict=True))


def read(words: list[bytes], entry_id: str = ID) -> Event:
    return wire.read(entry_id, fields(words))


def test_an_upsert_is_read_as_it_was_written() -> None:
    assert read(UPSERT) == Upsert("customer.v1", b'{"id":1}', b'{"id":1,"name":"Ada"}', AT)


def test_a_delete_is_read_as_it_was_written() -> None:
    assert read(wire.delete_words(b"customer.v12", b'{"id":1}', b"5", b"7")) == Delete("customer.v12", b'{"id":1}', AT)


def test_a_truncate_is_read_as_it_was_written() -> None:
    assert read(wire.truncate_words(b"customer.v1", b"5", b"7")) == Truncate("customer.v1", AT)


def test_a_mark_is_read_as_it_was_written() -> None:
    words = wire.mark_words(wire.RUN_BEGIN, {"run": "r1", "event": "größe.v1"}, b"5", "billing")
    assert read(words) == Mark("run-begin", {"run": "r1", "event": "größe.v1"}, AT, to="billing")
    assert read(wire.mark_words(wire.RUN_END, {}, b"5")) == Mark("run-end", {}, AT)


@pytest.mark.parametrize(
    ("words", "names"),
    [
        (UPSERT, "op type key state ts tx"),
        (wire.delete_words(b"a.v1", b"{}", b"5", b"7"), "op type key ts tx"),
        (wire.truncate_words(b"a.v1", b"5", b"7"), "op type ts tx"),
        (wire.mark_words("run-end", {}, b"5", "billing"), "op mark data ts to"),
    ],
)
def test_fields_are_written_in_the_order_of_the_format(words: list[bytes], names: str) -> None:
    assert b" ".join(words[::2]).decode() == names


def test_the_data_of_a_mark_is_json_without_spaces() -> None:
    assert fields(wire.mark_words("m", {"a": [1, "ß"]}, b"5"))[b"data"] == '{"a":[1,"ß"]}'.encode()


def test_optional_fields_are_read() -> None:
    optional = [b"origin", b"reread", b"partial", b'["body"]', b"quoted", b'["a","b"]', b"rev", b"3", b"to", b"billing"]
    event = read([*UPSERT, *optional, *wire.END_OF_TRANSACTION])
    assert event == Upsert(
        "customer.v1",
        b'{"id":1}',
        b'{"id":1,"name":"Ada"}',
        AT,
        ends_transaction=True,
        partial=("body",),
        quoted=("a", "b"),
        rev=3,
        to="billing",
    )


@pytest.mark.parametrize(
    "words",
    [
        UPSERT,
        wire.delete_words(b"a.v1", b"{}", b"5", b"7"),
        wire.truncate_words(b"a.v1", b"5", b"7"),
        wire.mark_words("run-end", {}, b"5"),
    ],
)
def test_every_kind_of_event_may_end_its_transaction_and_be_for_one_sink(words: list[bytes]) -> None:
    plain, marked = read(words), read([*words, b"to", b"billing", *wire.END_OF_TRANSACTION])
    assert (plain.ends_transaction, plain.to) == (False, None)
    assert (marked.ends_transaction, marked.to) == (True, "billing")


def test_fields_that_are_not_known_are_ignored() -> None:
    assert read([*UPSERT, b"later", b"\xff"]) == read(UPSERT)


@pytest.mark.parametrize("missing", [b"op", b"type", b"key", b"state"])
def test_a_missing_field_is_named(missing: bytes) -> None:
    entry = fields(UPSERT)
    del entry[missing]
    with pytest.raises(MalformedEntry, match=f"entry {ID} has no field '{missing.decode()}'"):
        wire.read(ID, entry)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        *((b"op", value) for value in (b"", b"insert", b"UPSERT", b"\xff")),
        *(
            (b"type", value)
            for value in (b"", b"customer", b"customer.v0", b"Customer.v1", b"a.v1\n", b"a-b.v1", b"\xff")
        ),
        *((b"type", value) for value in (b"a.v1234567", b"x" * 64 + b".v1", b'customers"; DROP.v1')),
        *((b"partial", value) for value in (b"", b"body", b'"body"', b"[1]", b"{}", b"null", b"\xff")),
        *((b"quoted", value) for value in (b"[null]", b"[[]]", b"[")),
        *((b"rev", value) for value in (b"", b"one", b"1.5")),
        (b"to", b"\xff"),
    ],
)
def test_a_malformed_field_is_refused(name: bytes, value: bytes) -> None:
    with pytest.raises(MalformedEntry, match=f"entry {ID} is not of wire format 1"):
        wire.read(ID, fields(UPSERT) | {name: value})


@pytest.mark.parametrize("data", [b"", b"[]", b"1", b"null", b'{"a":', b"\xff"])
def test_a_mark_whose_data_is_no_object_is_refused(data: bytes) -> None:
    with pytest.raises(MalformedEntry):
        wire.read(ID, {b"op": b"mark", b"mark": b"run-end", b"data": data, b"ts": b"5"})


def test_a_field_that_is_there_twice_is_refused() -> None:
    words = wire.delete_words(b"customer.v1", b"{}", b"1", b"7")
    with pytest.raises(MalformedEntry, match="entry 5-1000000 has a field twice"):
        wire.read_words(b"5-1000000", [*words, b"key", b'{"id":2}'])
    assert wire.read_words(b"5-1000000", words) == wire.read(
        "5-1000000", dict(zip(words[::2], words[1::2], strict=True))
    )


@pytest.mark.parametrize("field", [b"partial", b"quoted"])
def test_lists_nested_beyond_every_measure_are_refused(field: bytes) -> None:
    words = wire.upsert_words(b"customer.v1", b"{}", b"{}", b"1", b"7")
    with pytest.raises(MalformedEntry, match="wire format 1"):
        wire.read_words(b"5-1000000", [*words, field, b"[" * 100_000])


def test_an_entry_under_an_id_that_is_no_position_is_refused() -> None:
    with pytest.raises(MalformedEntry, match="not an entry id"):
        read(UPSERT, "now")


def test_a_refusal_never_holds_the_row() -> None:
    with pytest.raises(MalformedEntry) as refusal:
        wire.read(ID, fields(UPSERT) | {b"state": b"hunter2-planted", b"key": b"hunter2-planted", b"rev": b""})
    assert "hunter2" not in str(refusal.value)


texts = st.text(st.characters(exclude_categories=["Cs"]))


@given(st.dictionaries(texts, st.none() | st.booleans() | st.integers() | texts), texts, st.none() | texts.filter(bool))
def test_every_mark_survives_writing_and_reading(data: dict[str, object], name: str, to: str | None) -> None:
    assert read(wire.mark_words(name, data, b"5", to)) == Mark(name, data, AT, to=to)


@given(st.binary(), st.binary(), st.lists(texts), st.lists(texts), st.integers(1, 10**6))
def test_every_upsert_survives_writing_and_reading(
    key: bytes, state: bytes, partial: list[str], quoted: list[str], rev: int
) -> None:
    optional = [b"partial", wire.compact_json(partial), b"quoted", wire.compact_json(quoted), b"rev", b"%d" % rev]
    event = read([*wire.upsert_words(b"a.v1", key, state, b"5", b"7"), *optional])
    assert event == Upsert("a.v1", key, state, AT, partial=tuple(partial), quoted=tuple(quoted), rev=rev)
