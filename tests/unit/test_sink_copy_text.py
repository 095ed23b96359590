"""From states to COPY's text, without parsing them; tests/types holds the same against Postgres for every type."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from functools import partial

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sinks import copy_text
from sinks.copy_text import COMPILED, Column, LineWriter, compiled_writer, line_writer, pattern_writer

TYPES = {
    "id": "bigint",
    "name": "text",
    "price": "numeric(12,2)",
    "score": "double precision",
    "paid": "boolean",
    "doc": "jsonb",
    "raw": "json",
}
NAMES = list(TYPES)


Make = Callable[[tuple[Column, ...]], LineWriter]
WAYS: Mapping[str, Make] = {"pattern": pattern_writer} | ({"compiled": compiled_writer} if COMPILED else {})


@pytest.fixture(autouse=True, params=WAYS.values(), ids=list(WAYS))
def way(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(copy_text, "WRITER", request.param)


def line(write: LineWriter, state: bytes) -> bytes | None:
    """A single state's line."""
    lines, others = write([state])
    assert (lines.endswith(b"\n"), others) in ((True, []), (False, [0]))
    return None if others else lines[:-1]


def writer(fields: list[str] = NAMES, written: list[str] | None = None) -> Callable[[bytes], bytes | None]:
    made = line_writer(fields, TYPES, fields if written is None else written)
    assert made is not None
    return partial(line, made)


def test_values_lose_their_names_and_quotes_and_nothing_else() -> None:
    state = b'{"id":-7,"name":"Ada, \xc3\xa9","price":"0.10","score":1e-7,"paid":true,"doc":{"a": [1]},"raw":[1 , 2]}'
    assert writer()(state) == b'-7\tAda, \xc3\xa9\t0.10\t1e-7\ttrue\t{"a": [1]}\t[1 , 2]'


def test_a_null_is_not_the_word() -> None:
    assert writer(["id", "name"])(b'{"id":1,"name":null}') == b"1\t\\N"
    assert writer(["id", "name"])(b'{"id":1,"name":"null"}') == b"1\tnull"
    assert writer(["id", "name"])(b'{"id":1,"name":"\\\\N"}') == b"1\t\\\\N"  # which COPY reads as the two letters


def test_a_string_may_hold_what_json_escapes() -> None:
    state = json.dumps({"id": 1, "name": 'tab\t line\n "quoted" \\ /'}, separators=(",", ":")).encode()
    assert writer(["id", "name"])(state) == b'1\ttab\\t line\\n \\"quoted\\" \\\\ /'


def test_documents_keep_their_backslashes_and_white_space() -> None:
    state = b'{"id":1,"doc":{"a": "x\\"\\n"},"raw":{"b" :\t"\\u00e9"\n}}'
    assert writer(["id", "doc", "raw"])(state) == b'1\t{"a": "x\\\\"\\\\n"}\t{"b" :\\t"\\\\u00e9"\\n}'


def test_a_document_that_looks_like_the_rest_of_its_row_is_taken_whole() -> None:
    inner = b'{"raw": 1,"score":2, "doc": "x"}'
    assert writer(["raw", "score"])(b'{"raw":' + inner + b',"score":3}') == inner + b"\t3"
    assert writer(["doc", "raw"])(b'{"doc":{"a": 1},"raw":{"x":1,"raw":{}}}') == b'{"a": 1}\t{"x":1,"raw":{}}'


def test_floats_that_are_no_numbers_come_as_strings() -> None:
    assert writer(["id", "score"])(b'{"id":1,"score":"-Infinity"}') == b"1\t-Infinity"


def test_fields_without_a_column_are_stepped_over() -> None:
    assert (
        writer(written=["id", "paid"])(b'{"id":1,"name":"a","price":null,"score":0,"paid":false,"doc":null,"raw":null}')
        == b"1\tfalse"
    )


@pytest.mark.parametrize(
    "state",
    [
        b'{"id":1,"name":"\\u0041"}',  # COPY has no such escape
        b'{"name":"a","id":1}',
        b'{"id":1}',
        b'{"id":1,"name":"a","more":1}',
        b'{"id":1,"name":"a"',
        b'{"id":1,"name":"a"}}',
        b'{"id":1,"name":"a\\"}',
        b'{"id":1,"name":"a\\x41"}',
        b'{"id":1,"name":"a\n2\tb"}',  # no JSON, and it would be a second line
        b'{"id":1,"name":"a\\\\\n2\tb"}',
        b'{"id":"1","name":"a"}',
        b'{"id":1,"name":["a"]}',
        b'{"id":1, "name":"a"}',
        b"",
    ],
)
def test_another_form_is_left_to_the_targets_json_functions(state: bytes) -> None:
    assert writer(["id", "name"])(state) is None


def test_types_whose_json_is_not_their_text_have_no_writer() -> None:
    assert line_writer(["tags"], {"tags": "text[]"}, ["tags"]) is None
    assert line_writer(["a", "b"], {"a": "json", "b": "json"}, ["a", "b"]) is None


# What values are like, and what looks like what stands between them.
STRINGS = [b'"a"', b"null", b'""', b'"\\\\\\""', b'"\\u0041"', b'"caf\xc3\xa9"', b'"tab\t"']
DOCUMENTS = [b'{"a": "\\\\\\n"}', b"null", b"[1, null]", b'"x"', b"nullx"]
# The same behind and among eight bytes that are nothing special, for those are looked at in one go.
STRINGS += [b'"01234567%b89"' % odd for odd in (b"", b"\\n", b"\n", b"\x1f", b"\x20!\x7f\x80\xff", b"\\u00e9")]
DOCUMENTS += [b'{"01234567%b89": 1}' % odd for odd in (b"", b"\\n", b"\n", b"\x1f", b"\x80\xff")]
LIKELY = {
    "id": [b"1", b"-7", b"null", b"12a"],
    "name": STRINGS,
    "price": STRINGS,
    "score": [b"1.5e-7", b'"NaN"', b"null", b'"NaN', b"nullx"],
    "paid": [b"true", b"false", b"null", b"t"],
    "doc": DOCUMENTS,
    "raw": [*DOCUMENTS, b'{"x":\n1}', b' "\t" '],
}
PIECES = st.sampled_from([b"null", b'"', b"\\", b"\0", b"}", b",", b'"raw":', b',"raw":', b'"id":1']) | st.binary(
    max_size=3
)


@st.composite
def states(draw: st.DrawFn, fields: list[str]) -> bytes:
    """Mostly of the usual form."""

    def pair(name: str) -> bytes:
        return b'"%b":%b' % (name.encode(), draw(st.sampled_from(LIKELY[name])))

    pairs = [pair(name) for name in fields]
    if draw(st.booleans()):  # what stands behind a document, once more in it
        at = draw(st.integers(0, len(fields) - 1))
        pairs[at] += b"," + pair(draw(st.sampled_from(fields)))
    whole = bytearray(b"{" + b",".join(pairs) + b"}")
    if draw(st.booleans()):
        at = draw(st.integers(0, len(whole)))
        whole[at : at + draw(st.integers(0, 2))] = draw(PIECES)
    return bytes(whole)


@pytest.mark.skipif(COMPILED is None, reason="lines are written in Python here")
@given(st.lists(st.sampled_from(NAMES), min_size=1, max_size=4, unique=True), st.data())
def test_the_compiled_writer_writes_the_same_line_or_leaves_the_state_alone(
    fields: list[str], data: st.DataObject
) -> None:
    written = data.draw(st.lists(st.sampled_from(fields), unique=True))
    columns = tuple(Column(name, TYPES[name], name in written) for name in fields)
    some = data.draw(st.lists(states(fields) | st.binary(max_size=20), min_size=5, max_size=20))
    assert compiled_writer(columns)(some) == pattern_writer(columns)(some)
