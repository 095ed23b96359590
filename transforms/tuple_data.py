"""TupleData: the form in which pgoutput sends a row, and in which snapshot rows take the same way.

Two bytes count the columns; then each is `n` (NULL), `u` (an unchanged out-of-line value that was not sent), or `t`,
four bytes of length and the text form of the value.
Source: https://www.postgresql.org/docs/current/protocol-logicalrep-message-formats.html
"""

from __future__ import annotations

import struct
from collections.abc import Iterable
from typing import Final, Literal

from transforms.errors import StatecastError


class MalformedMessage(StatecastError):
    """The server sent bytes that are not of the protocol's form."""

    remedy = "Report this with both servers' versions: the stream stops here rather than be misread."


class Unchanged:
    """The one value that stands for "not sent, because it did not change": neither NULL nor empty."""

    def __repr__(self) -> str:
        return "UNCHANGED"

    def __bool__(self) -> Literal[False]:
        return False


UNCHANGED: Final = Unchanged()

Value = bytes | None | Unchanged
TupleData = tuple[Value, ...]

_U16 = struct.Struct("!H")
_U32 = struct.Struct("!I")


def decode(data: bytes, at: int) -> tuple[TupleData, int]:
    """Read the tuple that begins at `at`: its values and the offset behind it. Raises MalformedMessage."""
    try:
        (count,) = _U16.unpack_from(data, at)
        at += 2
        values: list[Value] = []
        for _ in range(count):
            kind = data[at]
            if kind == 0x74:  # t
                start = at + 5
                at = start + _U32.unpack_from(data, at + 1)[0]
                if at > len(data):
                    raise MalformedMessage(f"a value ends {at - len(data)} bytes behind the message")
                values.append(data[start:at])
            elif kind == 0x6E:  # n
                at += 1
                values.append(None)
            elif kind == 0x75:  # u
                at += 1
                values.append(UNCHANGED)
            else:
                raise MalformedMessage(f"a column is of unknown kind {kind:#04x}")
    except (struct.error, IndexError) as error:
        raise MalformedMessage("a tuple is cut short") from error
    return tuple(values), at


def kinds(data: bytes, at: int) -> bytes:
    """The shape of the tuple that begins at `at`: `t`, `n` or `u` for each column. Raises MalformedMessage."""
    try:
        (count,) = _U16.unpack_from(data, at)
        at += 2
        found = bytearray(count)
        for place in range(count):
            found[place] = kind = data[at]
            at += 5 + _U32.unpack_from(data, at + 1)[0] if kind == 0x74 else 1
    except (struct.error, IndexError) as error:
        raise MalformedMessage("a tuple is cut short") from error
    return bytes(found)


def encode(values: Iterable[bytes | None]) -> bytes:
    """Write values as TupleData: how a row found by a query takes the way of a row from the log."""
    parts = [b"n" if value is None else b"t" + _U32.pack(len(value)) + value for value in values]
    return _U16.pack(len(parts)) + b"".join(parts)
