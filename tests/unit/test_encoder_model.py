"""The compiled encoder against a naive one: any relation, any choice of columns, any row."""

from __future__ import annotations

import json
from typing import Any, NamedTuple

from hypothesis import given
from hypothesis import strategies as st

from tests import builders
from tests.builders import INTEGER, JSON, TEXT, column
from transforms.encoder import RelationColumn, Row, RowEncoder, compile_encoder
from transforms.tuple_data import UNCHANGED, Unchanged, Value

BOOLEAN = 16
text = st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]), max_size=6)
documents = st.recursive(st.none() | st.integers() | text, lambda inner: st.lists(inner) | st.dictionaries(text, inner))

# For each type: the value that JSON readers shall see, as Postgres writes it.
VALUES: dict[int, st.SearchStrategy[tuple[bytes, Any]]] = {
    INTEGER: st.integers(-(2**63), 2**63).map(lambda value: (b"%d" % value, value)),
    TEXT: text.map(lambda value: (value.encode(), value)),
    BOOLEAN: st.booleans().map(lambda value: (b"t" if value else b"f", value)),
    JSON: documents.filter(lambda value: value is not None).map(lambda value: (json.dumps(value).encode(), value)),
}


class Case(NamedTuple):
    """A relation with a row of it, and the columns that are listed; the first column is the key."""

    relation: list[RelationColumn]
    sent: list[Value]
    seen: dict[str, Any]
    listed: list[str]

    @property
    def key(self) -> str:
        return self.relation[0].name

    def compile(self) -> RowEncoder:
        return compile_encoder(self.relation, self.listed, [self.key])


@st.composite
def cases(draw: st.DrawFn) -> Case:
    names = draw(st.lists(text.filter(bool), min_size=1, max_size=6, unique=True))
    case = Case([], [], {}, draw(st.permutations(names))[: draw(st.integers(0, len(names)))])
    for number, name in enumerate(names):
        oid = INTEGER if number == 0 else draw(st.sampled_from(sorted(VALUES)))
        values: st.SearchStrategy[tuple[Value, Any]] = VALUES[oid]
        if number > 0:
            values = values | st.just((None, None)) | st.just((UNCHANGED, UNCHANGED))
        if oid == JSON:
            values = values | st.just((b"null", "null"))
        raw, case.seen[name] = draw(values)
        case.sent.append(raw)
        case.relation.append(column(name, oid))
    return case


@given(cases(), st.binary(max_size=4))
def test_a_row_is_the_json_that_a_naive_encoder_makes(case: Case, before: bytes) -> None:
    row = Row(*case.compile().row(before + builders.tuple_data(*case.sent), len(before), 0))
    left_out = [name for name in case.listed if case.seen[name] is UNCHANGED]
    json_nulls = {
        at.name for at, raw in zip(case.relation, case.sent, strict=True) if at.type.base_oid == JSON and raw == b"null"
    }
    assert json.loads(row.key) == {case.key: case.seen[case.key]}
    assert list(json.loads(row.state).items()) == [
        (name, case.seen[name]) for name in case.listed if name not in left_out
    ]
    assert row.partial == tuple(left_out)
    assert row.quoted == tuple(name for name in case.listed if name in json_nulls)


@given(cases())
def test_the_old_row_completes_every_row(case: Case) -> None:
    whole = [b"1" if value is UNCHANGED else value for value in case.sent]
    old, new = builders.tuple_data(*whole), builders.tuple_data(*case.sent)
    made = case.compile()
    assert Row(*made.row(b"O" + old + new, 1 + len(old), 1)) == Row(*made.row(old, 0, 0))


@given(cases())
def test_a_key_is_that_of_its_row(case: Case) -> None:
    data = builders.tuple_data(*case.sent)
    made = case.compile()
    assert made.key(data + b"N", 0) == (made.row(data, 0, 0)[0], len(data))


@given(cases())
def test_a_line_of_copys_text_is_encoded_like_the_tuple_with_its_values(case: Case) -> None:
    whole = [b"1" if isinstance(value, Unchanged) else value for value in case.sent]
    made = case.compile()
    assert Row(*made.line(copy_line(whole))) == Row(*made.row(builders.tuple_data(*whole), 0, 0))


def copy_line(values: list[bytes | None]) -> bytes:
    """As COPY TO writes it."""
    escapes = dict(zip(b"\\\b\f\n\r\t\v", (rb"\\", rb"\b", rb"\f", rb"\n", rb"\r", rb"\t", rb"\v"), strict=True))
    fields = [
        rb"\N" if value is None else b"".join(escapes.get(byte, bytes([byte])) for byte in value) for value in values
    ]
    return b"\t".join(fields) + b"\n"
