"""Rows in COPY's text format.

Source: https://www.postgresql.org/docs/current/sql-copy.html#SQL-COPY-FILE-FORMATS
"""

from __future__ import annotations

_ESCAPES = {b"b": b"\b", b"f": b"\f", b"n": b"\n", b"r": b"\r", b"t": b"\t", b"v": b"\v"}


def values(line: bytes) -> list[bytes | None]:
    """The values of one row, as it comes with its line's end."""
    found: list[bytes | None] = list(line[:-1].split(b"\t"))
    if b"\\" in line:
        return [None if value == b"\\N" else _unescape(value or b"") for value in found]
    return found


def kinds(line: bytes) -> bytes:
    """The shape of a line: `n` for each column that is NULL, else `t`."""
    return b"".join([b"n" if value == b"\\N" else b"t" for value in line[:-1].split(b"\t")])


def _unescape(value: bytes) -> bytes:
    if b"\\" not in value:
        return value
    first, *rest = value.split(b"\\")
    parts = [first]
    pieces = iter(rest)
    for piece in pieces:
        if piece:
            parts.append(_ESCAPES.get(piece[:1], piece[:1]) + piece[1:])
        else:  # an escaped backslash: what follows it, up to the next one, is plain
            parts.append(b"\\" + next(pieces, b""))
    return b"".join(parts)
