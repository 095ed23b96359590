"""The encoders, in Python and compiled, against a naive one: any relation, any choice of columns, any row."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from datetime import datetime
from functools import partial
from typing import Any, NamedTuple

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests import builders
from tests.builders import INTEGER, JSON, TEXT, column
from transforms.column_type import ColumnType, RelationColumn
from transforms.encoder import COMPILED, Row, RowEncoder, compiled_encoder, shaped_encoder
from transforms.row import Absent, Failed, LoggedRow, Undecided
from transforms.tuple_data import UNCHANGED, Value

BOOLEAN, NUMERIC, UUID, DOUBLE, TIMESTAMP, TIMESTAMPTZ, BYTEA, JSONB = 16, 1700, 2950, 701, 1114, 1184, 17, 3802
# Much of it could be mistaken for what stands between values.
text = (
    st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]), max_size=6)
    | st.text("tnuN\1\\")
    | st.builds(str.__add__, st.sampled_from(["7", "2000-01-01", "1.5", "Berli", ""]), st.text("nu", max_size=3))
)
documents = st.recursive(st.none() | st.integers() | text, lambda inner: st.lists(inner) | st.dictionaries(text, inner))
Make = Callable[[Sequence[RelationColumn], Sequence[str], Sequence[str]], RowEncoder]
explicit_encoder: Make = partial(shaped_encoder, seen_before=1000)
MADE: dict[str, Make] = {"shaped": partial(shaped_encoder, seen_before=0)}
if COMPILED:
    MADE["compiled"] = compiled_encoder
every_encoder = pytest.mark.parametrize("make", MADE.values(), ids=list(MADE))
Sent = tuple[bytes, Any]
"""A value as Postgres writes it, and as JSON readers shall see it."""


def string(value: str) -> Sent:
    return value.encode(), value


def document(value: Any) -> Sent:
    raw = json.dumps(value).encode()
    return raw, value


VALUES: dict[int, st.SearchStrategy[Sent]] = {
    INTEGER: st.integers(-(2**63), 2**63).map(lambda value: (b"%d" % value, value)),
    TEXT: text.map(string),
    BOOLEAN: st.booleans().map(lambda value: (b"t" if value else b"f", value)),
    NUMERIC: (st.decimals(allow_nan=False, allow_infinity=False).map(str) | st.just("NaN")).map(string),
    UUID: st.uuids().map(str).map(string),
    DOUBLE: st.floats(allow_nan=False, allow_infinity=False).map(lambda value: (b"%r" % value, value))
    | st.just((b"NaN", "NaN")),
    TIMESTAMP: st.datetimes(min_value=datetime(1000, 1, 1)).map(lambda value: (str(value).encode(), value.isoformat()))
    | st.just((b"infinity", "infinity")),
    TIMESTAMPTZ: st.datetimes(min_value=datetime(1000, 1, 1)).map(
        lambda value: (str(value).encode() + b"+00", value.isoformat() + "Z")
    ),
    BYTEA: st.binary(max_size=6).map(lambda value: string("\\x" + value.hex())),
    JSON: documents.map(document),
    JSONB: documents.map(document),
}


class Case(NamedTuple):
    """A relation with rows of it, and the columns that are listed; the first column is the key."""

    relation: list[RelationColumn]
    rows: list[list[tuple[Value, Any]]]
    listed: list[str]

    @property
    def key(self) -> str:
        return self.relation[0].name

    def encoder(self, make: Make) -> RowEncoder:
        return make(self.relation, self.listed, [self.key])

    def sent(self, row: int = 0) -> list[Value]:
        return [raw for raw, _ in self.rows[row]]

    def seen(self, row: int = 0) -> dict[str, Any]:
        return {column.name: seen for column, (_, seen) in zip(self.relation, self.rows[row], strict=True)}


@st.composite
def cases(draw: st.DrawFn, rows: int = 1) -> Case:
    names = draw(st.lists(text.filter(bool), min_size=1, max_size=8, unique=True))
    listed = draw(st.permutations(names))[: draw(st.integers(0, len(names)))]
    oids = [draw(st.sampled_from([INTEGER, TEXT]))] + [draw(st.sampled_from(sorted(VALUES))) for _ in names[1:]]
    values: list[st.SearchStrategy[tuple[Value, Any]]] = [
        VALUES[oid] if place == 0 else VALUES[oid] | st.just((None, None)) | st.just((UNCHANGED, UNCHANGED))
        for place, oid in enumerate(oids)
    ]
    relation = [column(name, oid) for name, oid in zip(names, oids, strict=True)]
    return Case(relation, [[draw(value) for value in values] for _ in range(rows)], listed)


def is_quoted(type_: ColumnType, raw: Value) -> bool:
    """Whether a JSON document of these cases travels as a string."""
    if not isinstance(raw, bytes) or type_.base_oid not in (JSON, JSONB):
        return False
    return raw == b"null" or (type_.base_oid == JSON and raw.startswith(b'"') and b"\\" in raw)


@pytest.mark.parametrize("make", [*MADE.values(), explicit_encoder], ids=[*MADE, "explicit"])
@given(cases(), st.binary(max_size=4))
def test_a_row_is_the_json_that_a_naive_encoder_makes(make: Make, case: Case, before: bytes) -> None:
    row = Row(*case.encoder(make).row(before + builders.tuple_data(*case.sent()), len(before), 0))
    seen = case.seen()
    quoted = [at.name for at, raw in zip(case.relation, case.sent(), strict=True) if is_quoted(at.type, raw)]
    left_out = [name for name in case.listed if seen[name] is UNCHANGED]
    state = json.loads(row.state)
    assert json.loads(row.key) == {case.key: seen[case.key]}
    assert list(state) == [name for name in case.listed if name not in left_out]
    for name, value in state.items():
        assert (json.loads(value) if name in quoted else value) == seen[name]
    assert row.partial == tuple(left_out)
    assert row.quoted == tuple(name for name in case.listed if name in quoted)


def state_of(row: LoggedRow) -> bytes:
    assert not isinstance(row, Absent | Undecided | Failed)
    return row[1]


@every_encoder
@given(cases(rows=4))
def test_what_was_met_before_never_changes_how_a_row_is_encoded(make: Make, case: Case) -> None:
    learned, explicit = case.encoder(make), case.encoder(explicit_encoder)
    for number in (*range(4), *range(4)):
        sent = case.sent(number)
        data = builders.tuple_data(*sent)
        assert Row(*learned.row(data, 0, 0)) == explicit.row(data, 0, 0)
        for behind in (b"", b"N\0\1t"):
            assert learned.key(data + behind, 0) == explicit.key(data + behind, 0)
        if UNCHANGED not in sent:
            line = copy_line(sent)
            assert Row(*learned.lines([line])[0]) == explicit.lines([line])[0] == explicit.row(data, 0, 0)


@every_encoder
def test_a_short_value_and_an_n_behind_a_text_are_no_null(make: Make) -> None:
    relation = [column("name"), column("born", 1082), column("city"), column("id", INTEGER)]
    learned = make(relation, ["name", "born", "city"], ["name", "id"])
    for row in ([b"Al", b"2000-01-01", None, b"1"], [b"Al", None, b"Berlin", b"5"]):
        data = builders.tuple_data(*row)
        state = {"name": "Al", "born": None if row[1] is None else "2000-01-01", "city": row[2] and row[2].decode()}
        assert json.loads(state_of(learned.row(data, 0, 0))) == state
        assert json.loads(learned.key(data, 0)[0])["name"] == "Al"


@pytest.mark.parametrize(
    ("types", "full", "row"),
    [
        # what stands behind the old tuple would make up a value of 36 bytes, or a count of columns without a NUL
        ((TEXT, UUID, TEXT, INTEGER), [b"a", b"0" * 36, b"b", b"1"], [b"customer-1", None, b"some text..", b"1"]),
        ((TEXT,) * 258, [b"1"] * 258, [b"1"] + [None] * 257),
    ],
)
@every_encoder
def test_a_key_never_runs_into_the_new_tuple(
    make: Make, types: tuple[int, ...], full: list[bytes], row: list[Value]
) -> None:
    relation = [column(f"c{place}", oid) for place, oid in enumerate(types)]
    learned = make(relation, [], ["c0"])
    known = builders.tuple_data(*full)
    assert learned.key(known + b"N" + known, 0)[1] == len(known)
    old = builders.tuple_data(*row)
    for new in ([b"customer-1", None, b"other", b"1"], [b"1", None, *[b"1"] * 256]):
        key, end = learned.key(old + b"N" + builders.tuple_data(*new), 0)
        assert (json.loads(key), end) == ({"c0": row[0].decode()}, len(old))  # type: ignore[union-attr]


@pytest.mark.parametrize("line", [b"5\t\\N\t\\N\n", b"5\t\\N\ta\\nb\n", b"5\t\\N\t\\\\N\n"])
@every_encoder
def test_a_null_is_no_bytea(make: Make, line: bytes) -> None:
    relation = [column("id", INTEGER), column("b", BYTEA), column("t")]
    learned, explicit = (one(relation, ["b", "t"], ["id"]) for one in (make, explicit_encoder))
    learned.lines([b"1\t\\\\x00\tx\n"])
    assert Row(*learned.lines([line])[0]) == explicit.lines([line])[0]


@every_encoder
@given(st.lists(st.lists(st.none() | st.text("tnu", max_size=4), min_size=4, max_size=4), min_size=2, max_size=4))
def test_a_letter_n_is_never_taken_for_a_null(make: Make, rows: list[list[str | None]]) -> None:
    relation = [column("id", INTEGER), *(column(name) for name in "abcd")]
    learned = make(relation, ["a", "c"], ["id"])
    for row in rows * 2:
        data = builders.tuple_data(b"1", *(value.encode() if value is not None else None for value in row))
        assert json.loads(state_of(learned.row(data, 0, 0))) == {"a": row[0], "c": row[2]}


@every_encoder
@given(cases())
def test_the_old_row_completes_every_row(make: Make, case: Case) -> None:
    whole = [b"1" if value is UNCHANGED else value for value in case.sent()]
    old, new = builders.tuple_data(*whole), builders.tuple_data(*case.sent())
    made = case.encoder(make)
    assert Row(*made.row(b"O" + old + new, 1 + len(old), 1)) == Row(*made.row(old, 0, 0))


@every_encoder
@given(cases())
def test_a_key_is_that_of_its_row(make: Make, case: Case) -> None:
    data = builders.tuple_data(*case.sent())
    made = case.encoder(make)
    assert made.key(data + b"N", 0) == (made.row(data, 0, 0)[0], len(data))


@every_encoder
@given(cases())
def test_a_line_of_copys_text_is_encoded_like_the_tuple_with_its_values(make: Make, case: Case) -> None:
    whole = [b"1" if value is UNCHANGED else value for value in case.sent()]
    made = case.encoder(make)
    assert Row(*made.lines([copy_line(whole)])[0]) == Row(*made.row(builders.tuple_data(*whole), 0, 0))


def copy_line(values: Sequence[Value]) -> bytes:
    """As COPY TO writes it."""
    escapes = dict(zip(b"\\\b\f\n\r\t\v", (rb"\\", rb"\b", rb"\f", rb"\n", rb"\r", rb"\t", rb"\v"), strict=True))
    fields = [
        b"".join(escapes.get(byte, bytes([byte])) for byte in value) if isinstance(value, bytes) else rb"\N"
        for value in values
    ]
    return b"\t".join(fields) + b"\n"
