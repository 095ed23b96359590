"""Wire format 1: the fields of a stream entry.

Writing is done by the few functions below, which return a flat list of words (field, value, field, value ...)
because that is what XADD takes and a list a row is the cheapest shape; reading turns a mapping of fields into an
`Event`. Fields that are not known are ignored, so that later versions may add some.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence

from transforms.errors import MalformedEntry
from transforms.event import Delete, Event, Mark, Truncate, Upsert
from transforms.position import Position
from transforms.row import Row

MICROSECONDS_2000 = 946_684_800_000_000
"""Microseconds from 1970 to 2000, the epoch that Postgres' protocol counts from."""

END_OF_TRANSACTION = (b"end", b"1")

RUN_BEGIN = "run-begin"
RUN_END = "run-end"

_TYPE = re.compile(r"[a-z][a-z0-9_]{0,62}\.v[1-9][0-9]{0,5}", re.ASCII)


def upsert_words(type_: bytes, key: bytes, state: bytes, ts: bytes, tx: bytes) -> list[bytes]:
    """The words of an upsert; optional fields are appended by the caller, in the order of the format."""
    return [b"op", b"upsert", b"type", type_, b"key", key, b"state", state, b"ts", ts, b"tx", tx]


def delete_words(type_: bytes, key: bytes, ts: bytes, tx: bytes) -> list[bytes]:
    """The words of a delete."""
    return [b"op", b"delete", b"type", type_, b"key", key, b"ts", ts, b"tx", tx]


def previous_words(row: tuple[bytes, bytes] | Row) -> tuple[bytes, ...]:
    """The words of an old state; `previous_quoted` is of it what `quoted` is of the state."""
    words = (b"previous", row[1])
    return (*words, b"previous_quoted", compact_json(row.quoted)) if isinstance(row, Row) and row.quoted else words


def truncate_words(type_: bytes, ts: bytes, tx: bytes) -> list[bytes]:
    """The words of a truncate, which has neither key nor state."""
    return [b"op", b"truncate", b"type", type_, b"ts", ts, b"tx", tx]


def mark_words(mark: str, data: Mapping[str, object], ts: bytes, to: str | None = None) -> list[bytes]:
    """The words of a mark; `data` becomes compact JSON."""
    words = [b"op", b"mark", b"mark", mark.encode(), b"data", compact_json(data), b"ts", ts]
    return [*words, b"to", to.encode()] if to else words


def compact_json(value: object) -> bytes:
    """JSON without spaces, in UTF-8."""
    return json.dumps(value, separators=(",", ":"), ensure_ascii=False).encode()


def read_words(entry_id: bytes, words: Sequence[bytes]) -> Event:
    """Turn an entry as Redis returns it into an event. Raises MalformedEntry, also where a field is there twice."""
    fields = dict(zip(words[::2], words[1::2], strict=True))
    if 2 * len(fields) < len(words):
        raise MalformedEntry(f"entry {entry_id.decode()} has a field twice")
    return read(entry_id.decode(), fields)


def read(entry_id: str, fields: Mapping[bytes, bytes]) -> Event:
    """Turn an entry into an event. Raises MalformedEntry when it is not one of wire format 1."""
    try:
        position = Position.parse(entry_id)
    except ValueError as error:
        raise MalformedEntry(str(error)) from error
    try:
        return _read(position, fields)
    except KeyError as error:
        raise MalformedEntry(f"entry {entry_id} has no field {error.args[0].decode()!r}") from error
    except (ValueError, RecursionError) as error:
        raise MalformedEntry(f"entry {entry_id} is not of wire format 1: {error}") from error


def _read(position: Position, fields: Mapping[bytes, bytes]) -> Event:
    op, ends = fields[b"op"], fields.get(b"end") == b"1"
    to = fields[b"to"].decode() if b"to" in fields else None
    if op == b"upsert":
        return Upsert(
            _type(fields),
            fields[b"key"],
            fields[b"state"],
            position,
            ends,
            _names(fields.get(b"partial")),
            _names(fields.get(b"quoted")),
            _revision(fields.get(b"rev", b"1")),
            to,
            fields.get(b"previous"),
            _names(fields.get(b"previous_quoted")),
        )
    if op == b"delete":
        previous, quoted = fields.get(b"previous"), _names(fields.get(b"previous_quoted"))
        return Delete(_type(fields), fields[b"key"], position, ends, to, previous, quoted)
    if op == b"truncate":
        return Truncate(_type(fields), position, ends, to)
    if op == b"mark":
        data = json.loads(fields[b"data"])
        if not isinstance(data, dict):
            raise ValueError("the data of a mark is not a JSON object")
        compact_json(data)  # refuses what no UTF-8 holds
        return Mark(fields[b"mark"].decode(), data, position, ends, to)
    raise ValueError(f"unknown op {op.decode(errors='replace')!r}")


def _type(fields: Mapping[bytes, bytes]) -> str:
    name = fields[b"type"].decode()
    if not _TYPE.fullmatch(name):
        raise ValueError("its type is not of the form name.vN")
    return name


def _revision(text: bytes) -> int:
    if not re.fullmatch(rb"[1-9][0-9]{0,8}", text):
        raise ValueError("its rev is not a number from 1 on")
    return int(text)


def _names(array: bytes | None) -> tuple[str, ...]:
    if array is None:
        return ()
    names: Sequence[object] = json.loads(array)
    if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
        raise ValueError("a list of fields is not a JSON array of strings")
    "".join(names).encode()  # refuses what no UTF-8 holds
    return tuple(str(name) for name in names)
