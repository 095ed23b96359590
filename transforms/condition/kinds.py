"""What columns of a type can be compared with, how that is written in SQL, and how it is judged here.

A kind turns both a value's text, as Postgres writes it in our sessions, and a literal into keys that compare as the
values do in Postgres.
"""

from __future__ import annotations

import math
import re
import struct
from collections.abc import Callable
from dataclasses import dataclass
from decimal import Decimal
from enum import Enum
from typing import Any, Final

from transforms.column_type import ColumnType
from transforms.condition import moments

MOST_EXPONENT: Final = 1_000
"""Of a number: far more than any column needs, far less than what Postgres would refuse."""

_NUMBER: Final = re.compile(r"-?[0-9]+(\.[0-9]*)?([eE][+-]?[0-9]{1,5})?")
_SPECIAL: Final = frozenset({"NaN", "Infinity", "-Infinity"})
_UUID: Final = re.compile(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}")
_TEXT_OPERAND: Final = '{}::pg_catalog.text COLLATE pg_catalog."C"'


class Written(Enum):
    """The forms of literals, in words."""

    NUMBER = "a number, without quotes"
    TEXT = "text in single quotes"
    TRUTH = "TRUE or FALSE"


@dataclass(frozen=True, slots=True)
class Literal:
    """A literal in the type of the column that it is compared with."""

    text: str
    """As Postgres reads it."""
    key: Any
    """What the keys of values are compared with."""


@dataclass(frozen=True, slots=True)
class Kind:
    """What can be done with columns of some types."""

    literal_type: str
    """The SQL type of literals."""
    written: tuple[Written, ...]
    """How a literal may be written."""
    read: Callable[[str], Literal]
    """A literal's text. Raises ValueError, with what would be right."""
    key: Callable[[bytes], Any]
    """A value's text."""
    is_ordered: bool = True
    has_patterns: bool = False
    operand: str = "{}"
    """The column in a comparison, around its name."""


def kind_of(type_: ColumnType) -> Kind | None:
    """The kind of a column; None: it can be compared with nothing."""
    if type_.element_oid:
        return None
    return _ENUM if type_.is_enum else _BY_OID.get(type_.base_oid)


def _decimal(text: str) -> Decimal:
    if not _NUMBER.fullmatch(text):
        raise ValueError("not a number")
    number = Decimal(text)
    if abs(number.adjusted()) > MOST_EXPONENT:
        raise ValueError(f"a number between 1e-{MOST_EXPONENT} and 1e{MOST_EXPONENT} is expected")
    return number


def _read_integer(text: str) -> Literal:
    number = _decimal(text)
    return Literal(str(number), _exact_key(text.encode()))


def _read_numeric(text: str) -> Literal:
    return Literal(text, _exact_key(text.encode())) if text in _SPECIAL else _read_integer(text)


def _exact_key(text: bytes) -> tuple[int, Decimal]:
    """NaN is greater than all, and equal to itself. Numbers of Python's decimal are compared exactly."""
    return (1, Decimal(0)) if text == b"NaN" else (0, Decimal(text.decode()))


def _read_float(text: str) -> Literal:
    if text in _SPECIAL:
        return Literal(text, _double_key(text.encode()))
    number = _decimal(text)
    double = float(number)
    if math.isinf(double) or (double == 0.0 and number):
        raise ValueError("a number that a double precision can hold is expected")
    return Literal(str(number), (0, double))


def _double_key(text: bytes) -> tuple[int, float]:
    number = float(text)
    return (1, 0.0) if math.isnan(number) else (0, number)


def _single_key(text: bytes) -> tuple[int, float]:
    """A real, widened as Postgres widens it: not the double that is nearest to its text."""
    (number,) = struct.unpack("f", struct.pack("f", float(text)))
    return (1, 0.0) if math.isnan(number) else (0, number)


def _read_text(text: str) -> Literal:
    return Literal(text, text.encode())


def _read_padded(text: str) -> Literal:
    """Spaces at the end of a char(n) mean nothing, on either side."""
    return Literal(text.rstrip(" "), text.rstrip(" ").encode())


def _read_uuid(text: str) -> Literal:
    if not _UUID.fullmatch(text.lower()):
        raise ValueError("a uuid is written in groups of 8, 4, 4, 4 and 12 hex digits")
    return Literal(text.lower(), text.lower().encode())


def _moment(read: Callable[[str], tuple[str, moments.Moment]]) -> Callable[[str], Literal]:
    return lambda text: Literal(*read(text))


_TEXT = Kind(
    "pg_catalog.text", (Written.TEXT,), _read_text, bytes, is_ordered=False, has_patterns=True, operand=_TEXT_OPERAND
)
_ENUM = _TEXT
"""As text: a literal that is none of its labels is equal to none, and no error."""
_INTEGER = Kind("pg_catalog.numeric", (Written.NUMBER,), _read_integer, _exact_key)
_BY_OID: Final = {
    16: Kind(
        "pg_catalog.bool",
        (Written.TRUTH,),
        lambda text: Literal(text, text == "true"),
        lambda text: text == b"t",
        is_ordered=False,
    ),
    20: _INTEGER,  # int8
    21: _INTEGER,  # int2
    23: _INTEGER,  # int4
    25: _TEXT,
    700: Kind("pg_catalog.float8", (Written.NUMBER, Written.TEXT), _read_float, _single_key),
    701: Kind("pg_catalog.float8", (Written.NUMBER, Written.TEXT), _read_float, _double_key),
    1042: Kind(
        "pg_catalog.bpchar",
        (Written.TEXT,),
        _read_padded,
        lambda text: text.rstrip(b" "),
        is_ordered=False,
        has_patterns=True,
        operand='{}::pg_catalog.bpchar COLLATE pg_catalog."C"',
    ),
    1043: _TEXT,  # varchar
    1082: Kind("pg_catalog.date", (Written.TEXT,), _moment(moments.read_date), moments.read_value),
    1114: Kind("pg_catalog.timestamp", (Written.TEXT,), _moment(moments.read_timestamp), moments.read_value),
    1184: Kind("pg_catalog.timestamptz", (Written.TEXT,), _moment(moments.read_timestamptz), moments.read_value),
    1700: Kind("pg_catalog.numeric", (Written.NUMBER, Written.TEXT), _read_numeric, _exact_key),
    2950: Kind("pg_catalog.uuid", (Written.TEXT,), _read_uuid, bytes, is_ordered=False),
}
