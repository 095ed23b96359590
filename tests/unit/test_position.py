"""LSNs print as Postgres prints them, and ids of entries order changes as the source committed them."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from transforms.position import LSN, START, Position

offsets = st.integers(0, 2**64 - 1)


@pytest.mark.parametrize(
    ("text", "value"),
    [("0/0", 0), ("16/B374D848", 0x16B374D848), ("0/1", 1), ("1/0", 1 << 32), ("FFFFFFFF/FFFFFFFF", 2**64 - 1)],
)
def test_an_lsn_is_written_as_postgres_writes_it(text: str, value: int) -> None:
    assert LSN.parse(text) == value
    assert str(LSN(value)) == repr(LSN(value)) == text


@given(offsets)
def test_every_lsn_survives_being_printed(offset: int) -> None:
    assert LSN.parse(str(LSN(offset))) == offset


def test_an_lsn_is_read_in_small_letters_and_with_leading_zeros() -> None:
    assert LSN.parse("16/b374d848") == LSN.parse("00000016/B374D848")


@pytest.mark.parametrize(
    "text",
    ["", "/", "1", "1/", "/1", "1/2/3", "0x1/2", "G/0", "123456789/0", "0/123456789", " 1/2", "1/2\n", "-1/2", "٣/1"],
)
def test_anything_else_is_not_an_lsn(text: str) -> None:
    with pytest.raises(ValueError, match="not an LSN"):
        LSN.parse(text)


@given(offsets, offsets)
def test_every_position_survives_being_printed(commit_lsn: int, ordinal: int) -> None:
    position = Position(LSN(commit_lsn), ordinal)
    assert Position.parse(str(position)) == position


def test_a_position_prints_as_the_id_of_its_entry() -> None:
    assert str(Position(LSN.parse("0/5F11"), 1_000_000)) == "24337-1000000"


@pytest.mark.parametrize(
    "text",
    [
        *("", "-", "1", "1-", "-1", "1-2-3", "1-*", "a-1", " 1-1", "1-1\n", "+1-1", "1.0-1", "1_0-1", "٣-1"),
        *("18446744073709551616-1", "1-18446744073709551616", "1-" + "0" * 21),
    ],
)
def test_anything_else_is_not_a_position(text: str) -> None:
    with pytest.raises(ValueError, match="not an entry id"):
        Position.parse(text)


def test_positions_order_by_commit_and_then_by_ordinal() -> None:
    ids = ["9-5000000", "10-1000000", "10-1000001", "10-2000000"]
    positions = [Position.parse(id) for id in ids]
    assert sorted({*positions}) == positions
    assert min(positions) > START
