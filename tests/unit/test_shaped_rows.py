"""Renamed and masked fields, and rows that are not of the event: every encoder against a naive one."""

from __future__ import annotations

import hmac
import json
import zlib
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, NamedTuple, cast

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests import builders
from tests.builders import INTEGER, column
from tests.unit.test_encoder_model import Case, cases, copy_line, text
from transforms.encoder import COMPILED, RowEncoder, compile_encoder, compiled_encoder, shaped_encoder
from transforms.errors import ValueNotEncodable
from transforms.masking import REDACTED, MaskName, Masks
from transforms.row import Absent, Field, LoggedRow, Row, RowFilter, SourcedKey, Undecided, source_key
from transforms.tuple_data import UNCHANGED, MalformedMessage, Value

Make = Callable[..., RowEncoder]
MADE: dict[str, Make] = {
    "shaped": partial(shaped_encoder, seen_before=0),
    "explicit": partial(shaped_encoder, seen_before=1000),
}
if COMPILED:
    MADE["compiled"] = compiled_encoder
few = settings(max_examples=30)  # each makes an encoder, and what its rows need compiled
every_encoder = pytest.mark.parametrize("make", MADE.values(), ids=list(MADE))
MASKS = Masks(b"a key of the tests", "k7")
HOW: list[MaskName | None] = [None, "hash", "redact", "null"]


def verdict(texts: Sequence[bytes | None]) -> bool | None:
    """A judge that no encoder can guess."""
    return (True, None, False, True)[zlib.crc32(repr(list(texts)).encode()) % 4]


class Shaped(NamedTuple):
    case: Case
    fields: list[Field]
    key: Field
    how: list[MaskName | None]
    judged: tuple[str, ...]

    def encoder(self, make: Make) -> RowEncoder:
        filter_ = RowFilter(self.judged, verdict) if self.judged else None
        return make(self.case.relation, self.fields, [self.key], filter_)

    def raw(self, column: str, row: int) -> Value:
        names = [each.name for each in self.case.relation]
        return self.case.sent(row)[names.index(column)]

    def is_judged(self, row: int) -> bool | None:
        """Whether the row is of the event; UNCHANGED: nobody knows."""
        texts = [self.raw(name, row) for name in self.judged]
        if any(value is UNCHANGED for value in texts):
            return None
        return not texts or verdict(cast(list[bytes | None], texts)) is True

    def seen(self, field: Field, how: MaskName | None, row: int) -> Any:
        raw = self.raw(field.column, row)
        if raw is None or (raw is UNCHANGED and how not in ("redact", "null")):
            return raw
        if how == "hash":
            assert isinstance(raw, bytes)
            mask = MASKS.of("hash")
            assert callable(mask)
            return json.loads(mask(raw))
        return {"redact": REDACTED, "null": None}.get(how or "", self.case.seen(row)[field.column])


@st.composite
def shaped(draw: st.DrawFn, rows: int = 1) -> Shaped:
    case = draw(cases(rows=rows))
    names = draw(st.lists(text.filter(bool), min_size=len(case.listed), max_size=len(case.listed), unique=True))
    how = [draw(st.sampled_from(HOW)) for _ in names]
    fields = [Field(name, at, MASKS.of(mask)) for name, at, mask in zip(names, case.listed, how, strict=True)]
    masked: MaskName | None = draw(st.sampled_from(["hash", None]))
    if case.key in case.listed:
        at = case.listed.index(case.key)
        how[at], fields[at] = masked, fields[at]._replace(mask=MASKS.of(masked))
    judged = draw(st.lists(st.sampled_from([each.name for each in case.relation]), max_size=3, unique=True))
    return Shaped(case, fields, Field("the key", case.key, MASKS.of(masked)), how, tuple(judged))


def as_row(encoded: LoggedRow) -> Row | Absent | Undecided:
    return encoded if isinstance(encoded, Row | Absent | Undecided) else Row(*encoded)


@every_encoder
@few
@given(shaped(rows=3))
def test_a_row_is_what_a_naive_encoder_makes_of_it(make: Make, given: Shaped) -> None:
    made = given.encoder(make)
    for number in (0, 1, 2, 0, 1, 2):  # also of a shape that was met before
        data = builders.tuple_data(*given.case.sent(number))
        encoded, judged = as_row(made.row(data, 0, 0)), given.is_judged(number)
        key = given.seen(given.key, "hash" if given.key.mask else None, number)
        assert json.loads(encoded.key) == {"the key": key}
        assert made.key(data + b"N", 0) == (encoded.key, len(data))
        if judged is not True:
            assert type(encoded) is (Undecided if judged is None else Absent)
            continue
        assert isinstance(encoded, Row)
        told = {field.name: given.seen(field, how, number) for field, how in zip(given.fields, given.how, strict=True)}
        state = {
            name: json.loads(value) if name in encoded.quoted else value
            for name, value in json.loads(encoded.state).items()
        }
        assert state == {name: value for name, value in told.items() if value is not UNCHANGED}
        assert encoded.partial == tuple(name for name, value in told.items() if value is UNCHANGED)


@every_encoder
@few
@given(shaped(rows=2))
def test_a_line_of_copys_text_is_encoded_like_the_tuple_with_its_values(make: Make, given: Shaped) -> None:
    made = given.encoder(make)
    for row in (0, 1, 0, 1):
        whole = [b"1" if value is UNCHANGED else value for value in given.case.sent(row)]
        tuple_row = as_row(made.row(builders.tuple_data(*whole), 0, 0))
        assert [as_row(each) for each in made.lines([copy_line(whole)] * 2)] == [tuple_row] * 2


@every_encoder
@few
@given(shaped())
def test_a_whole_old_row_tells_whether_it_was_of_the_event(make: Make, given: Shaped) -> None:
    made = given.encoder(make)
    data = builders.tuple_data(*given.case.sent())
    assert (made.held is None) == (not given.judged)
    if made.held:
        assert made.held(b"..." + data, 3) is (given.is_judged(0) is not False)
        with pytest.raises(MalformedMessage):
            made.held(data[:-1], 0)


@every_encoder
@few
@given(shaped())
def test_the_old_row_tells_what_was_not_sent(make: Make, given: Shaped) -> None:
    whole = [b"1" if value is UNCHANGED else value for value in given.case.sent()]
    old, new = builders.tuple_data(*whole), builders.tuple_data(*given.case.sent())
    made = given.encoder(make)
    assert as_row(made.row(b"O" + old + new, 1 + len(old), 1)) == as_row(made.row(old, 0, 0))


RELATION = [column("id", INTEGER), column("email"), column("note")]
HASHED = [Field("id", "id"), Field("address", "email", MASKS.of("hash"))]


def test_a_masked_key_knows_what_finds_the_row_and_does_not_show_it() -> None:
    made = compile_encoder(RELATION, HASHED, HASHED[1:], RowFilter(("id",), lambda texts: texts[0] == b"1"))
    clear = b'{"address":"ada@home"}'
    row, absent = (builders.tuple_data(id, b"ada@home", UNCHANGED) for id in (b"1", b"2"))
    keys = [
        made.row(row, 0, 0)[0],
        made.row(absent, 0, 0)[0],
        made.key(row, 0)[0],
        *(each[0] for each in made.lines([b"1\tada@home\tx\n", b"2\tada@home\tx\n"])),
    ]
    assert [source_key(key) for key in keys] == [clear] * 5
    assert len({*keys}) == 1
    for key in keys:
        assert isinstance(key, SourcedKey)
        assert "ada" not in key.decode()
        assert "ada" not in repr(key)
    assert source_key(b'{"id":1}') == b'{"id":1}'


def test_a_hash_is_an_hmac_of_the_text_with_the_keys_id_before_it() -> None:
    row = compile_encoder(RELATION, HASHED, ["id"]).row(builders.tuple_data(b"1", b"ada@home", None), 0, 0)
    # openssl dgst -sha256 -hmac 'a key of the tests' of the text
    digest = "17fe11182a990dfe151abb7919b81605747960a100f4a94c015c6ec4bf301896"
    assert json.loads(row[1]) == {"id": 1, "address": f"k7:{digest}"}  # type: ignore[misc]


@every_encoder
def test_a_value_that_the_judge_cannot_read_is_told_without_it(make: Make) -> None:
    def judge(texts: Sequence[bytes | None]) -> bool:
        assert texts[0] is not None
        return texts[0].decode() == "x"

    made = make(RELATION, ["id"], ["id"], RowFilter(("note",), judge))
    for _ in range(2):
        with pytest.raises(ValueNotEncodable, match='column "note", which `where` judges, is not UTF-8') as refusal:
            made.row(builders.tuple_data(b"1", None, b"planted\xff"), 0, 0)
        assert "planted" not in str(refusal.value)
        assert refusal.value.__cause__ is None


@every_encoder
def test_another_mistake_of_the_judge_is_not_hidden(make: Make) -> None:
    made = make(RELATION, ["id"], ["id"], RowFilter(("note",), lambda _: 1 // 0 == 1))
    for _ in range(2):
        with pytest.raises(ZeroDivisionError):
            made.row(builders.tuple_data(b"1", None, b"x"), 0, 0)
        with pytest.raises(ZeroDivisionError):
            made.lines([b"1\ta\tb\n"])


@given(st.binary(min_size=1, max_size=200), st.binary(max_size=200))
def test_a_hash_is_an_hmac_whatever_the_sizes(key: bytes, text: bytes) -> None:
    mask = Masks(key, "k1").of("hash")
    assert callable(mask)
    for _ in range(2):
        assert mask(text) == b'"k1:%b"' % hmac.digest(key, text, "sha256").hex().encode()


def test_a_hash_needs_a_key() -> None:
    with pytest.raises(ValueError, match="a hash needs a key"):
        Masks().of("hash")
    assert (Masks().of("null"), Masks().of(None)) == (b"null", None)


def test_the_fingerprint_tells_keys_apart_and_ids_too() -> None:
    prints = {
        Masks().fingerprint,
        *(Masks(key, id).fingerprint for key in (b"a" * 16, b"b" * 16) for id in ("k1", "k2")),
    }
    assert len(prints) == 5
    assert MASKS.fingerprint == Masks(MASKS.hash_key, "k7").fingerprint
