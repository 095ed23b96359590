"""COPY's text format read back: what is escaped, what is NULL, and what only looks like it."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from transforms import copy_text

_ESCAPED = {b"\\": b"\\\\", b"\b": b"\\b", b"\f": b"\\f", b"\n": b"\\n", b"\r": b"\\r", b"\t": b"\\t", b"\v": b"\\v"}


def copied(values: list[bytes | None]) -> bytes:
    """A row as Postgres writes it."""
    parts = [
        b"\\N" if value is None else b"".join(_ESCAPED.get(byte, byte) for byte in map(bytes, zip(value, strict=True)))
        for value in values
    ]
    return b"\t".join(parts) + b"\n"


def test_null_and_its_spelling_as_text_stay_distinct() -> None:
    assert copy_text.values(b"\\N\t\\\\N\t\n") == [None, b"\\N", b""]


@given(st.lists(st.none() | st.binary(max_size=20).filter(lambda value: b"\0" not in value), min_size=1, max_size=5))
def test_any_values_are_read_back(values: list[bytes | None]) -> None:
    assert copy_text.values(copied(values)) == values
