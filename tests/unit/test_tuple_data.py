"""TupleData: NULL, unchanged and empty are three things, and a cut tuple is none of them."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests import builders
from transforms import tuple_data
from transforms.tuple_data import UNCHANGED, MalformedMessage, Value

rows = st.lists(st.none() | st.binary(max_size=20), max_size=8)
tuples = st.lists(st.none() | st.just(UNCHANGED) | st.binary(max_size=20), max_size=8)


@given(rows)
def test_every_row_survives_encoding_and_decoding(row: list[bytes | None]) -> None:
    data = tuple_data.encode(row)
    assert tuple_data.decode(data, 0) == (tuple(row), len(data))


@given(tuples, st.binary(max_size=5), st.binary(max_size=5))
def test_a_tuple_is_read_from_its_offset_and_no_further(row: list[Value], before: bytes, behind: bytes) -> None:
    data = builders.tuple_data(*row)
    assert tuple_data.decode(before + data + behind, len(before)) == (tuple(row), len(before + data))


@given(tuples)
def test_every_truncation_of_a_tuple_is_refused(row: list[Value]) -> None:
    data = builders.tuple_data(*row)
    for size in range(len(data)):
        with pytest.raises(MalformedMessage):
            tuple_data.decode(data[:size], 0)


def test_null_unchanged_and_empty_stay_distinct() -> None:
    null, unchanged, empty = tuple_data.decode(builders.tuple_data(None, UNCHANGED, b""), 0)[0]
    assert (null, unchanged, empty) == (None, UNCHANGED, b"")
    assert unchanged is not null
    assert repr(unchanged) == "UNCHANGED"


@pytest.mark.parametrize("kind", sorted(set(range(256)) - set(b"ntu")))
def test_a_column_of_another_kind_is_refused(kind: int) -> None:
    with pytest.raises(MalformedMessage, match=f"unknown kind {kind:#04x}"):
        tuple_data.decode(b"\0\1" + bytes([kind]) + b"\0\0\0\0", 0)


def test_a_length_beyond_the_message_is_refused_and_not_allocated() -> None:
    with pytest.raises(MalformedMessage, match="behind the message"):
        tuple_data.decode(b"\0\1t\xff\xff\xff\xff", 0)


def test_the_most_columns_a_tuple_can_count_are_read() -> None:
    assert len(tuple_data.decode(tuple_data.encode([None] * 65_535), 0)[0]) == 65_535
