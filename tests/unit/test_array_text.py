"""Arrays: every element of Postgres' text form is found, and nothing that JSON would lose becomes a JSON array."""

from __future__ import annotations

import json
from collections.abc import Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from transforms import array_text
from transforms.values import encode_text

Nested = str | None | Sequence["Nested"]


def read(text: str, delimiter: bytes = b",") -> object:
    written = array_text.to_json(text.encode(), encode_text, delimiter)
    return None if written is None else json.loads(written)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("{}", []),
        ("{a}", ["a"]),
        ("{a,b c,d}", ["a", "b c", "d"]),
        ('{NULL,"NULL",null}', [None, "NULL", "null"]),
        ('{"","a,b","{x}"," "}', ["", "a,b", "{x}", " "]),
        (r'{"a\"b","c\\d","\\\""}', ['a"b', r"c\d", '\\"']),
        ('{"line\nbreak"}', ["line\nbreak"]),
        ("{{1,2},{3,NULL}}", [["1", "2"], ["3", None]]),
        ("{{{a}},{{b}}}", [[["a"]], [["b"]]]),
        ("{größe,☃}", ["größe", "☃"]),
    ],
)
def test_an_array_becomes_a_json_array(text: str, expected: object) -> None:
    assert read(text) == expected


def test_boxes_are_parted_by_semicolons_and_keep_their_commas() -> None:
    assert read("{(1,1),(0,0);(2,2),(1,1)}", b";") == ["(1,1),(0,0)", "(2,2),(1,1)"]


def test_geometries_are_parted_by_colons() -> None:
    assert read("{0101000020E6:0102}", b":") == ["0101000020E6", "0102"]


@pytest.mark.parametrize("text", ["[0:1]={1,2}", "[2:2][0:0]={{1}}"])
def test_an_array_that_does_not_begin_at_one_is_left_to_be_text(text: str) -> None:
    assert read(text) is None


def written_by_postgres(value: Nested) -> str:
    """array_out, quoting every element."""
    if value is None:
        return "NULL"
    if isinstance(value, str):
        return '"' + value.replace("\\", r"\\").replace('"', r"\"") + '"'
    return "{" + ",".join(map(written_by_postgres, value)) + "}"


elements = st.none() | st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]), max_size=8)


@given(st.lists(elements, max_size=5) | st.lists(st.lists(elements, min_size=2, max_size=2), min_size=1, max_size=3))
def test_every_text_survives_in_an_array(value: list[Nested]) -> None:
    assert read(written_by_postgres(value)) == value
