"""Row encoders: the bytes of a tuple become the JSON that the contract promises, and nothing unlisted gets out."""

from __future__ import annotations

import json
from collections.abc import Callable
from functools import partial

import pytest

from tests import builders
from tests.builders import INTEGER, JSON, TEXT, column
from transforms import tuple_data
from transforms.column_type import RelationColumn
from transforms.encoder import (
    COMPILED,
    KeyNotSent,
    Row,
    RowEncoder,
    UnchangedValues,
    compiled_encoder,
    shaped_encoder,
)
from transforms.errors import ValueNotEncodable
from transforms.tuple_data import UNCHANGED, MalformedMessage, Value

SECRET = b"hunter2-planted"
JSONB, FLOAT, DOUBLE, BOOLEAN, BYTEA, NUMERIC, TIMESTAMP, TIMESTAMPTZ = 3802, 700, 701, 16, 17, 1700, 1114, 1184


class Way:
    """How rows are encoded: in C, by a function made for their shape, or column by column."""

    make: Callable[..., RowEncoder] = staticmethod(shaped_encoder)


WAYS: dict[str, Callable[..., RowEncoder]] = {
    "shaped": partial(shaped_encoder, seen_before=0),
    "explicit": partial(shaped_encoder, seen_before=1000),
}
if COMPILED:
    WAYS["compiled"] = compiled_encoder


@pytest.fixture(autouse=True, params=WAYS.values(), ids=list(WAYS))
def way(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Way, "make", staticmethod(request.param))


def encoder(*columns: RelationColumn, listed: list[str] | None = None, key: list[str] | None = None) -> RowEncoder:
    names = [column.name for column in columns]
    listed, key = (names if listed is None else listed), (names[:1] if key is None else key)
    return Way.make(columns, listed, key)


def encode(made: RowEncoder, *row: Value, old: list[Value] | None = None, kind: bytes = b"O") -> Row:
    """The encoded row, which lies behind its old tuple as in an Update message."""
    before = kind + (builders.tuple_data(*old) if old else b"")
    plain_or_row = made.row(before + builders.tuple_data(*row), len(before), 1 if old else 0)
    return Row(*plain_or_row)


def state_of(type_: RelationColumn, value: Value) -> bytes:
    row = encode(encoder(column("id", INTEGER), type_), b"1", value)
    return row.state.removeprefix(b'{"id":1,"v":').removesuffix(b"}")


@pytest.mark.parametrize(
    ("oid", "text", "expected"),
    [
        (20, "9223372036854775807", "9223372036854775807"),
        (21, "-32768", "-32768"),
        (INTEGER, "0", "0"),
        (26, "4294967295", "4294967295"),
        (NUMERIC, "10.50", '"10.50"'),
        (NUMERIC, "NaN", '"NaN"'),
        (790, "-$1,234.50", '"-$1,234.50"'),
        (FLOAT, "1e-05", "1e-05"),
        (DOUBLE, "0.1", "0.1"),
        (DOUBLE, "-0", "-0"),
        (DOUBLE, "NaN", '"NaN"'),
        (DOUBLE, "Infinity", '"Infinity"'),
        (DOUBLE, "-Infinity", '"-Infinity"'),
        (BOOLEAN, "t", "true"),
        (BOOLEAN, "f", "false"),
        (JSON, '{"a" : [1, 1.0]}', '{"a" : [1, 1.0]}'),
        (JSONB, '{"a": 1e400}', '{"a": 1e400}'),
        (TIMESTAMPTZ, "2026-01-02 03:04:05.678+00", '"2026-01-02T03:04:05.678Z"'),
        (TIMESTAMPTZ, "infinity", '"infinity"'),
        (TIMESTAMPTZ, "-infinity", '"-infinity"'),
        (TIMESTAMPTZ, "0044-03-15 12:00:00+00 BC", '"0044-03-15 12:00:00+00 BC"'),
        (TIMESTAMPTZ, "10000-01-01 00:00:00+00", '"10000-01-01 00:00:00+00"'),
        (TIMESTAMP, "2026-01-02 03:04:05", '"2026-01-02T03:04:05"'),
        (TIMESTAMP, "infinity", '"infinity"'),
        (TIMESTAMP, "0044-03-15 12:00:00 BC", '"0044-03-15 12:00:00 BC"'),
        (1082, "2026-01-02", '"2026-01-02"'),
        (1186, "P1Y2M3DT4H5M6.7S", '"P1Y2M3DT4H5M6.7S"'),
        (2950, "6ba7b810-9dad-11d1-80b4-00c04fd430c8", '"6ba7b810-9dad-11d1-80b4-00c04fd430c8"'),
        (869, "10.0.0.0/8", '"10.0.0.0/8"'),
        (BYTEA, r"\x00ff", r'"\\x00ff"'),
        (BYTEA, r"\x", r'"\\x"'),
        (TEXT, 'a"b\\c\n☃\u007f', '"a\\"b\\\\c\\n☃\u007f"'),
        (TEXT, "", '""'),
        (99999, '(1,"a b")', '"(1,\\"a b\\")"'),
    ],
)
def test_a_value_takes_the_form_of_its_type(oid: int, text: str, expected: str) -> None:
    written = state_of(column("v", oid), text.encode())
    assert written.decode() == expected
    json.loads(written)


@pytest.mark.parametrize(
    ("element", "text", "expected"),
    [
        (INTEGER, "{1,NULL,-3}", "[1,null,-3]"),
        (NUMERIC, "{1.50,NaN}", '["1.50","NaN"]'),
        (DOUBLE, "{0.1,NaN,Infinity}", '[0.1,"NaN","Infinity"]'),
        (BOOLEAN, "{t,f}", "[true,false]"),
        (BYTEA, r'{"\\x00ff"}', r'["\\x00ff"]'),
        (TIMESTAMPTZ, '{"2026-01-02 03:04:05+00",infinity}', '["2026-01-02T03:04:05Z","infinity"]'),
        (TEXT, '{{a,"b\\"c"},{NULL,d}}', '[["a","b\\"c"],[null,"d"]]'),
        (INTEGER, "[0:1]={1,2}", '"[0:1]={1,2}"'),
        (JSON, '{"{\\"a\\": 1}"}', '"{\\"{\\\\\\"a\\\\\\": 1}\\"}"'),
        (JSONB, "{1,null}", '"{1,null}"'),
    ],
)
def test_an_array_takes_the_form_of_its_elements(element: int, text: str, expected: str) -> None:
    written = state_of(column("v", 99999, element=element), text.encode())
    assert written.decode() == expected
    json.loads(written)


@pytest.mark.parametrize("oid", [INTEGER, DOUBLE, BOOLEAN, JSON, JSONB, TIMESTAMP, TIMESTAMPTZ, BYTEA, NUMERIC, TEXT])
def test_null_is_null_whatever_the_type(oid: int) -> None:
    assert state_of(column("v", oid), None) == b"null"
    assert state_of(column("v", 99999, element=oid), None) == b"null"


# JSON that cannot be spliced in


@pytest.mark.parametrize(
    ("oid", "text"),
    [
        (JSON, "null"),
        (JSONB, "null"),
        *((JSON, text) for text in (" null ", " 1", "1\n", "\t{}", '"\\u0000"', '{"a\\u0000": 1}')),
        *((JSON, text) for text in ('"\\ud800"', '"\\udc00"', '"\\ud800x"', '"\\ud800\\n\\udc00"', '"\\ud800\\ud800"')),
        (JSON, '"\\ud83d\\ude00\\uD83D"'),
    ],
)
def test_json_that_a_reader_would_lose_is_quoted(oid: int, text: str) -> None:
    row = encode(encoder(column("id", INTEGER), column("v", oid), column("w", JSON)), b"1", text.encode(), b"[2]")
    assert json.loads(row.state) == {"id": 1, "v": text, "w": [2]}
    assert (row.quoted, row.partial) == (("v",), ())


@pytest.mark.parametrize(
    "text", ['["\\\\u0000"]', '["\\ud83d\\ude00"]', '["\\u00e9"]', '{"a": null}', '"null"', "[null]"]
)
def test_other_json_is_spliced_in_as_it_is(text: str) -> None:
    row = encode(encoder(column("id", INTEGER), column("v", JSON)), b"1", text.encode())
    assert row == Row(b'{"id":1}', b'{"id":1,"v":%b}' % text.encode())


# Values that were not sent


def test_an_unchanged_value_is_left_out_and_named() -> None:
    made = encoder(column("id", INTEGER), column("body"), column("note"))
    assert encode(made, b"1", UNCHANGED, None) == Row(b'{"id":1}', b'{"id":1,"note":null}', ("body",))


def test_the_old_row_fills_in_what_did_not_change_and_nothing_else() -> None:
    made = encoder(column("id", INTEGER), column("body"), column("note"))
    row = encode(made, b"2", UNCHANGED, None, old=[b"1", b"large", b"before"])
    assert row == Row(b'{"id":2}', b'{"id":2,"body":"large","note":null}')


def test_an_old_key_fills_in_the_key_and_its_empty_columns_are_no_nulls() -> None:
    made = encoder(column("id"), column("body"))
    row = encode(made, UNCHANGED, UNCHANGED, old=[b"long", None], kind=b"K")
    assert row == Row(b'{"id":"long"}', b'{"id":"long"}', ("body",))


def test_an_unchanged_value_that_is_not_listed_is_of_no_concern() -> None:
    made = encoder(column("id", INTEGER), column("body"), listed=["id"])
    assert encode(made, b"1", UNCHANGED) == Row(b'{"id":1}', b'{"id":1}')


def test_a_key_that_was_not_sent_is_never_left_out() -> None:
    made = encoder(column("id"), column("note"))
    with pytest.raises(UnchangedValues, match="id"):
        encode(made, UNCHANGED, b"x")
    with pytest.raises(UnchangedValues, match="id"):
        made.key(builders.tuple_data(UNCHANGED, b"x"), 0)


# Keys and names


def test_a_key_is_written_in_the_order_of_the_key_and_ends_where_the_tuple_ends() -> None:
    made = encoder(column("a", INTEGER), column("secret"), column("b"), listed=["a", "b"], key=["b", "a"])
    data = b"##" + builders.tuple_data(b"1", SECRET, b"x") + b"N"
    assert made.key(data, 2) == (b'{"b":"x","a":1}', len(data) - 1)
    assert encode(made, b"1", SECRET, b"x").key == b'{"b":"x","a":1}'


def test_the_old_key_of_an_update_has_nulls_for_all_but_the_identity() -> None:
    made = encoder(column("id", INTEGER), column("body"), column("tags", 1009, element=TEXT))
    assert made.key(builders.tuple_data(b"1", None, None), 0)[0] == b'{"id":1}'


@pytest.mark.parametrize(
    "name", ["100%", "%b%s%(x)s", 'say "no"', "back\\slash", "größe ☃", "{v0}", "a\nb", "'", "def"]
)
def test_any_name_that_postgres_allows_is_written_as_it_is(name: str) -> None:
    row = encode(encoder(column("id", INTEGER), column(name)), b"1", b"%d")
    assert json.loads(row.state) == {"id": 1, name: "%d"}
    keyed = encode(encoder(column(name), column("id", INTEGER)), b"%d", b"1")
    assert json.loads(keyed.key) == {name: "%d"}


def test_a_column_that_the_relation_lacks_cannot_be_compiled() -> None:
    with pytest.raises(KeyError, match="absent"):
        encoder(column("id", INTEGER), listed=["id", "absent"])


# What never gets out, and what is refused


@pytest.mark.parametrize("value", [b"[1]", None, UNCHANGED, b" 1", b"null"])
def test_an_unlisted_value_never_appears_whichever_way_the_row_takes(value: Value) -> None:
    made = encoder(column("id", INTEGER), column("secret"), column("v", JSON), listed=["id", "v"])
    row = encode(made, b"1", SECRET, value, old=[b"1", SECRET, b"2"])
    assert SECRET not in row.key + row.state
    assert sorted(json.loads(row.state)) == ["id", "v"]


@pytest.mark.parametrize("oid", [TEXT, 99999])
def test_a_value_that_is_not_utf8_is_refused_by_the_name_of_its_column(oid: int) -> None:
    made = encoder(column("id", INTEGER), column("Näme", oid), column("names", 1009, element=TEXT))
    for row in ([b"1", SECRET + b"\xff", None], [b"1", None, b"{" + SECRET + b"\xff}"]):
        with pytest.raises(ValueNotEncodable) as refusal:
            encode(made, *row)
        assert json.dumps("Näme" if row[1] else "names") in str(refusal.value)
        assert SECRET.decode() not in str(refusal.value)


@pytest.mark.parametrize("oid", [JSON, JSONB])
@pytest.mark.parametrize("text", [b'"caf\xe9"', b' "\xff"', b'"\\u0000\xff"'])
def test_json_that_is_not_utf8_is_refused_by_the_name_of_its_column(oid: int, text: bytes) -> None:
    with pytest.raises(ValueNotEncodable, match='column "v"'):
        state_of(column("v", oid), text)


@pytest.mark.parametrize("oid", [JSON, JSONB])
def test_json_in_any_language_is_spliced_in_as_it_is(oid: int) -> None:
    row = encode(encoder(column("id", INTEGER), column("v", oid)), b"1", '{"größe": "☃ 𝄞"}'.encode())
    assert row == Row(b'{"id":1}', '{"id":1,"v":{"größe": "☃ 𝄞"}}'.encode())


WIDE = [column("id", INTEGER), column("a"), column("hidden"), column("j", JSON), column("t", 99999, element=INTEGER)]
WIDE_ROW = builders.tuple_data(b"1", b"text", b"unlisted", b"[1]", b"{1,2}")


def test_every_truncation_of_a_row_is_refused() -> None:
    made = encoder(*WIDE, listed=["id", "a", "j", "t"])
    assert made.row(WIDE_ROW, 0, 0)[0] == made.key(WIDE_ROW, 0)[0]  # its shape is known
    for size in range(len(WIDE_ROW)):
        with pytest.raises(MalformedMessage):
            made.row(WIDE_ROW[:size], 0, 0)
        with pytest.raises(MalformedMessage):
            made.key(WIDE_ROW[:size], 0)


@pytest.mark.parametrize(("last", "value"), [(INTEGER, b"12"), (TEXT, b"ab"), (TIMESTAMP, b"2026-01-02 03:04:05.6")])
def test_a_last_value_that_is_shorter_than_its_length_is_refused(last: int, value: bytes) -> None:
    for listed in (["id", "v"], ["id"]):
        made = encoder(column("id", INTEGER), column("v", last), listed=listed)
        data = builders.tuple_data(b"1", value)
        made.row(data, 0, 0)
        with pytest.raises(MalformedMessage):
            made.row(data[:-1], 0, 0)


def test_a_byte_behind_a_row_is_refused() -> None:
    made = encoder(*WIDE)
    made.row(WIDE_ROW, 0, 0)
    with pytest.raises(MalformedMessage):
        made.row(WIDE_ROW + b"\0", 0, 0)


@pytest.mark.parametrize("row", [[], [b"1"], [b"1", b"2", b"3"]])
def test_a_row_with_another_number_of_columns_is_refused(row: list[Value]) -> None:
    made = encoder(column("id", INTEGER), column("a"))
    with pytest.raises(MalformedMessage):
        encode(made, *row)
    with pytest.raises(MalformedMessage):
        made.key(builders.tuple_data(*row), 0)


@pytest.mark.parametrize("listed", [["id"], ["id", "a"]])
@pytest.mark.parametrize("kind", [b"b\0\0\0\0", b"x", b"N"])
def test_a_column_of_unknown_kind_is_refused_also_where_it_is_not_listed(listed: list[str], kind: bytes) -> None:
    made = encoder(column("id", INTEGER), column("a"), listed=listed)
    data = builders.tuple_data(b"1", None)[:-1] + kind
    with pytest.raises(MalformedMessage):
        made.row(data, 0, 0)
    with pytest.raises(MalformedMessage):
        made.key(data, 0)


def test_a_key_that_would_read_back_as_null_is_refused() -> None:
    made = encoder(column("id", JSONB), column("v", INTEGER))
    with pytest.raises(KeyNotSent, match='column "id"'):
        encode(made, b"null", b"1")
    with pytest.raises(KeyNotSent, match='column "id"'):
        made.key(tuple_data.encode([None, None]), 0)
