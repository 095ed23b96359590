"""Hooks: a function of the operator's that is given each state of an event, and says what is published instead.

It gets a dict of the fields by their published names, after `rename` and `mask`, and returns it with other values, or
None: the row is not published. Values are what `json` makes of the state, but that a number with a fraction or an
exponent is a `Decimal`, so that none is changed by passing through: integers are `int`, a numeric is a string, as in
the state. A value that comes back as it went in is published byte for byte as it was, inside a json column too (where
a document that is changed is written anew, without its spaces and with the last of two equal names). A json field that
is `quoted` is a string; one that comes back as anything else is not quoted any more.

Nothing is rejected here but what the wire cannot hold: other fields, another key, what is no JSON.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import replace
from decimal import Decimal
from json.encoder import encode_basestring
from math import isfinite
from types import CodeType, TracebackType
from typing import Any, Final, NamedTuple, TypeAlias

from transforms.encoder import RowEncoder
from transforms.row import Absent, EncodedRow, Failed, LoggedRow, Row, Undecided

Function: TypeAlias = Callable[[dict[str, Any]], dict[str, Any] | None]

_BLANKS = re.compile(r"[ \t\n\r]*")
_LONGEST_INT: Final = 4_000
"""Digits; Python refuses longer ones from strings (sys.int_info.default_max_str_digits)."""


class FieldsChanged(ValueError):
    """A hook returned other fields than it was given, or no dict."""


class KeyChanged(ValueError):
    """A hook changed a value of the key."""


class NotJson(ValueError):
    """A hook returned a value that JSON does not have."""


def hooked(encoder: RowEncoder, function: Callable[[], Function], key: Collection[str]) -> RowEncoder:
    """The same, with each row as the hook makes it; `function` gives the hook, `key` the fields of the key.

    Rows that are not whole, and will be read again, are not shown to it.
    """
    hook = _Hook(function, frozenset(key))

    def encode_row(data: bytes, at: int, old: int) -> LoggedRow:
        row = encoder.row(data, at, old)
        if isinstance(row, Undecided) or (isinstance(row, Row) and row.partial):
            return row
        return hook.apply(row)

    def encode_lines(texts: list[bytes]) -> list[EncodedRow]:
        return list(map(hook.apply, encoder.lines(texts)))

    return replace(encoder, row=encode_row, lines=encode_lines, upserts=None, transactions=None)


class _Value(NamedTuple):
    """A field of a state."""

    text: str
    """As it was written, with the blanks around it."""
    parsed: Any
    written: str | None
    """What `_written` makes of it, where a hook may change it in place."""


class _Hook:
    def __init__(self, function: Callable[[], Function], key: frozenset[str]) -> None:
        self._function = function
        self._key = key

    def apply(self, row: EncodedRow) -> EncodedRow:
        """What the hook makes of a row."""
        if isinstance(row, Absent | Failed):
            return row
        key, function = row[0], self._function()
        try:
            given = dict(_fields(row[1].decode()))
            returned = function({name: value.parsed for name, value in given.items()})
            if returned is None:
                return Absent(key)
            return self._row(key, given, returned, row.quoted if isinstance(row, Row) else ())
        except (Exception, SystemExit) as error:  # whatever an operator's function raises; its text may hold values
            return Failed(key, type(error).__name__, _line_of(error.__traceback__, function))

    def _row(self, key: bytes, given: Mapping[str, _Value], returned: object, quoted: tuple[str, ...]) -> EncodedRow:
        if not isinstance(returned, dict) or returned.keys() != given.keys():
            raise FieldsChanged
        parts, changed = list[str](), set[str]()
        for name, value in given.items():
            text = _text_of(value, returned[name])
            if text is None:
                text = value.text
            else:
                changed.add(name)
            parts.append(f"{encode_basestring(name)}:{text}")
        if changed & self._key:
            raise KeyChanged
        state = f"{{{','.join(parts)}}}".encode()
        left = tuple(name for name in quoted if name not in changed or isinstance(returned[name], str))
        return Row(key, state, (), left) if left else (key, state)


def _text_of(before: _Value, value: object) -> str | None:
    """What is written for a value that a hook returned; None: what was there before."""
    if before.written is None and value is before.parsed:
        return None
    text = _written(value)
    return None if text == (_written(before.parsed) if before.written is None else before.written) else text


def _fields(state: str) -> Iterator[tuple[str, _Value]]:
    """The fields of a JSON object that an encoder has written: without blanks, but for those of a json column."""
    at = 1
    while state[at] != "}":
        name, end = _READ(state, at)
        start = end + 1  # behind the colon
        parsed, end = _READ(state, _behind_blanks(state, start))
        end = _behind_blanks(state, end)
        written = _written(parsed) if isinstance(parsed, dict | list) else None
        yield name, _Value(state[start:end], parsed, written)
        at = end + (state[end] == ",")


def _behind_blanks(text: str, at: int) -> int:
    found = _BLANKS.match(text, at)
    assert found is not None
    return found.end()


def _integer(text: str) -> int | Decimal:
    return int(text) if len(text) <= _LONGEST_INT else Decimal(text)


_READ: Final = json.JSONDecoder(parse_float=Decimal, parse_int=_integer).raw_decode


def _written(value: object) -> str:
    """Compact JSON. Raises NotJson."""
    match value:
        case None:
            return "null"
        case bool():
            return "true" if value else "false"
        case str():
            return encode_basestring(value)
        case int():
            return int.__repr__(value)
        case float() if isfinite(value):
            return float.__repr__(value)
        case Decimal() if value.is_finite():
            return str(value)
        case dict() if all(isinstance(name, str) for name in value):
            return f"{{{','.join(f'{encode_basestring(name)}:{_written(each)}' for name, each in value.items())}}}"
        case list() | tuple():
            return f"[{','.join(map(_written, value))}]"
        case _:
            raise NotJson


def _line_of(traceback: TracebackType | None, function: Function) -> str:
    """Where a hook failed: `hooks.py:12`, its own innermost line, or that of its definition where it returned."""
    code = getattr(function, "__code__", None) or getattr(type(function).__call__, "__code__", None)
    if not isinstance(code, CodeType):
        return "?"
    line = code.co_firstlineno
    while traceback is not None:
        if traceback.tb_frame.f_code.co_filename == code.co_filename:
            line = traceback.tb_lineno
        traceback = traceback.tb_next
    return f"{code.co_filename}:{line}"
