"""States as lines of COPY's text format, without parsing them.

Once the values are taken out of their JSON object, they nearly are COPY's text already: JSON escapes a string with the
same backslash and the same letters (all but `\\u`), and a JSON string holds no raw tab or line's end. So one regular
expression for each set of fields finds the values, and the target reads each with its type's own input function, at
half the cost of its JSON functions. A state that is not of the usual form is left to those.
Source: https://www.postgresql.org/docs/current/sql-copy.html#SQL-COPY-FILE-FORMATS
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Collection, Mapping, Sequence
from functools import lru_cache
from typing import Final, NamedTuple

from transforms import accelerator

COMPILED: Final = accelerator.load("sinks._entries")

LineWriter = Callable[[list[bytes]], tuple[bytes, list[int]]]
"""From states to their lines, and the numbers of those that have none, for they are not of the usual form."""

_NULL = b"\\N"
# One group takes the value, without quotes; no group takes a NULL.
_NUMBER = rb"(?:([0-9-]++)|null)"
_FLOAT = rb'(?:null|"?+([0-9A-Za-z.+-]++)"?+)'  # NaN and the infinities are strings
_BOOLEAN = rb"(?:(true|false)|null)"
_STRING = rb'(?:"([^"]*+)"|null)'
_ESCAPED_STRING = rb'(?:"([^"\\\n\t\r]*(?:\\["\\/bfnrt][^"\\\n\t\r]*)*)"|null)'
# jsonb's text has a space behind each comma and colon, so what follows it in the state is never found inside of it.
_DOCUMENTS = {"jsonb": rb"(?:null|(.*?))", "json": rb"(?:null|(.*))"}
_OTHERS = {
    **dict.fromkeys(("smallint", "integer", "bigint", "oid"), _NUMBER),
    **dict.fromkeys(("real", "double precision"), _FLOAT),
    "boolean": _BOOLEAN,
}
_LETTERS = {
    _NUMBER: b"n",
    _FLOAT: b"f",
    _BOOLEAN: b"b",
    _STRING: b"s",
    _DOCUMENTS["jsonb"]: b"J",
    _DOCUMENTS["json"]: b"j",
}
"""What `_entries.c` calls them."""


def line_writer(fields: Sequence[str], base_types: Mapping[str, str], written: Collection[str]) -> LineWriter | None:
    """The writer for states with these fields, of which those in `written` are written, in the order of the fields.

    None when these types are better left to the target's JSON functions: a JSON array is no array's text, and with two
    fields of type json it is not certain where one ends.
    """
    types = tuple(base_types[name] for name in fields)
    if any(type_.endswith("[]") for type_ in types) or types.count("json") > 1:
        return None
    columns = tuple(Column(name, type_, name in written) for name, type_ in zip(fields, types, strict=True))
    return WRITER(columns)


class Column(NamedTuple):
    """A field of the states, and whether it is written."""

    name: str
    type: str
    is_written: bool

    @property
    def label(self) -> bytes:
        """What stands before its values."""
        return json.dumps(self.name, ensure_ascii=False).encode() + b":"

    def value(self, string: bytes) -> bytes:
        """The pattern of its values, where strings have this one."""
        return _DOCUMENTS.get(self.type) or _OTHERS.get(self.type, string)


@lru_cache(maxsize=64)
def compiled_writer(columns: tuple[Column, ...]) -> LineWriter:
    """The writer that runs in C where a state is common."""
    fields = [(column.label, _LETTERS[column.value(_STRING)], column.is_written) for column in columns]
    write = COMPILED.LineWriter(tuple(fields)).write
    in_python = _pattern_line(columns)
    return lambda states: write(states, in_python)


@lru_cache(maxsize=64)
def pattern_writer(columns: tuple[Column, ...]) -> LineWriter:
    """The writer in Python."""
    line_of = _pattern_line(columns)

    def write(states: list[bytes]) -> tuple[bytes, list[int]]:
        lines = [line_of(state) for state in states]
        return (
            b"".join([b"%b\n" % line for line in lines if line is not None]),
            [number for number, line in enumerate(lines) if line is None],
        )

    return write


def _pattern_line(columns: tuple[Column, ...]) -> Callable[[bytes], bytes | None]:
    """What makes a state's line, without its end."""
    plain = _pattern(columns, _STRING).fullmatch
    escaped = _pattern(columns, _ESCAPED_STRING).fullmatch
    of_written = [column.type for column in columns if column.is_written]
    documents = [place for place, type_ in enumerate(of_written) if type_ in _DOCUMENTS]
    has_json = "json" in of_written

    def line(state: bytes) -> bytes | None:
        if b"\\" not in state and b"\n" not in state and not (has_json and _has_space(state)):
            found = plain(state)
            return None if found is None else b"\t".join(found.groups(_NULL))
        found = escaped(state)
        if found is None:
            return None
        values = list(found.groups())
        for place in documents:
            if (document := values[place]) is not None:
                values[place] = _escaped(document)
        return b"\t".join([_NULL if value is None else value for value in values])

    return line


WRITER: Final = compiled_writer if COMPILED else pattern_writer


def _pattern(columns: Sequence[Column], string: bytes) -> re.Pattern[bytes]:
    parts = []
    for column in columns:
        value = column.value(string)
        if not column.is_written:
            value = re.sub(rb"\((?!\?)", b"(?:", value)
        parts.append(re.escape(column.label) + value)
    return re.compile(rb"\{" + b",".join(parts) + rb"\}", re.DOTALL)


def _has_space(state: bytes) -> bool:
    return b"\t" in state or b"\r" in state


def _escaped(document: bytes) -> bytes:
    escaped = document.replace(b"\\", b"\\\\")
    return escaped.replace(b"\n", b"\\n").replace(b"\t", b"\\t").replace(b"\r", b"\\r")
