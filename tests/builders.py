"""Builders of what a walsender sends: pgoutput messages as bytes, and the frames around them."""

from __future__ import annotations

import struct
from collections.abc import Iterable, Sequence

from cdc.walsender import KEEPALIVE, XLOG_DATA
from transforms.column_type import ColumnType, RelationColumn
from transforms.position import LSN
from transforms.tuple_data import UNCHANGED, Value

SMALLINT, INTEGER, BIGINT, TEXT, JSON = 21, 23, 20, 25, 114


def column(name: str, oid: int = TEXT, *, element: int = 0, delimiter: bytes = b",") -> RelationColumn:
    """A column of a built-in type; `element` makes it an array of that type."""
    return RelationColumn(name, ColumnType(f"type {oid}", f"type {oid}", oid, element, delimiter))


def tuple_data(*values: Value) -> bytes:
    """A TupleData, unchanged values included."""
    parts = [struct.pack("!H", len(values))]
    for value in values:
        if value is None:
            parts.append(b"n")
        elif value is UNCHANGED:
            parts.append(b"u")
        else:
            assert isinstance(value, bytes)
            parts.append(b"t" + struct.pack("!I", len(value)) + value)
    return b"".join(parts)


def begin(lsn: int, *, xid: int = 700, time: int = 0) -> bytes:
    return b"B" + struct.pack("!QqI", lsn, time, xid)


def commit(lsn: int, *, end: int | None = None, time: int = 0) -> bytes:
    return b"C" + struct.pack("!BQQq", 0, lsn, lsn + 8 if end is None else end, time)


def relation(
    relation_id: int, name: str, columns: Sequence[tuple[str, int]], *, schema: str = "public", identity: str = "d"
) -> bytes:
    """A Relation message; the first column is the key."""
    parts = [b"R" + struct.pack("!I", relation_id), _string(schema), _string(name), identity.encode()]
    parts.append(struct.pack("!H", len(columns)))
    for number, (column_name, oid) in enumerate(columns):
        parts.append(struct.pack("!B", number == 0) + _string(column_name) + struct.pack("!Ii", oid, -1))
    return b"".join(parts)


def insert(relation_id: int, *new: Value) -> bytes:
    return b"I" + struct.pack("!I", relation_id) + b"N" + tuple_data(*new)


def update(relation_id: int, *new: Value, key: Sequence[Value] = (), old: Sequence[Value] = ()) -> bytes:
    """An Update; `key` is the old key's tuple (`K`), `old` the whole old row (`O`)."""
    before = b"K" + tuple_data(*key) if key else b"O" + tuple_data(*old) if old else b""
    return b"U" + struct.pack("!I", relation_id) + before + b"N" + tuple_data(*new)


def delete(relation_id: int, *old: Value, kind: bytes = b"K") -> bytes:
    return b"D" + struct.pack("!I", relation_id) + kind + tuple_data(*old)


def truncate(*relation_ids: int, options: int = 0) -> bytes:
    return (
        b"T" + struct.pack("!IB", len(relation_ids), options) + b"".join(struct.pack("!I", id) for id in relation_ids)
    )


def origin(name: str, lsn: int = 0) -> bytes:
    return b"O" + struct.pack("!Q", lsn) + _string(name)


def message(prefix: str, content: bytes, *, transactional: bool = True, lsn: int = 0) -> bytes:
    return b"M" + struct.pack("!BQ", transactional, lsn) + _string(prefix) + struct.pack("!I", len(content)) + content


def xlog_data(payload: bytes) -> bytes:
    """The XLogData frame that carries a message."""
    return struct.pack("!BQQq", XLOG_DATA, 0, 0, 0) + payload


def keepalive(wal_end: int, *, reply: bool = False) -> bytes:
    return struct.pack("!BQqB", KEEPALIVE, wal_end, 0, reply)


def transaction(lsn: int, *messages: bytes, xid: int = 700, end: int | None = None, time: int = 0) -> Iterable[bytes]:
    """The frames of one transaction."""
    yield xlog_data(begin(lsn, xid=xid, time=time))
    yield from map(xlog_data, messages)
    yield xlog_data(commit(lsn, end=end, time=time))


def lsn(text: str) -> LSN:
    return LSN.parse(text)


def _string(text: str) -> bytes:
    return text.encode() + b"\0"
