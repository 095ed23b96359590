"""A sans-IO decoder of pgoutput, protocol version 1: bytes in, messages out.

Every length is checked against the bytes at hand and every message must end where its bytes end, so that a cut or
damaged message is refused and never misread. Rows on the hot path do not pass through `decode`: their tuples go to a
compiled encoder, which makes the same checks (`transforms.encoder`).
"""

from __future__ import annotations

import struct
from collections.abc import Callable

from cdc.messages import (
    BeginMessage,
    CommitMessage,
    DeleteMessage,
    InsertMessage,
    LogicalMessage,
    Message,
    OriginMessage,
    RelationColumnInfo,
    RelationMessage,
    TruncateMessage,
    TypeMessage,
    UpdateMessage,
)
from transforms import tuple_data
from transforms.position import LSN
from transforms.tuple_data import MalformedMessage, TupleData

BEGIN, COMMIT, ORIGIN, RELATION, TYPE = b"BCORY"
INSERT, UPDATE, DELETE, TRUNCATE, MESSAGE = b"IUDTM"
NEW, KEY, OLD = b"NKO"


class UnknownMessage(MalformedMessage):
    """A message type that protocol version 1 does not have."""

    remedy = "Upgrade statecast: this server speaks a newer protocol. Nothing was skipped."


class _Cursor:
    """Reads fields one after the other. Raises MalformedMessage when one is not wholly there."""

    def __init__(self, data: bytes, at: int) -> None:
        self.data = data
        self.at = at

    def unpack(self, layout: struct.Struct) -> tuple[int, ...]:
        try:
            fields: tuple[int, ...] = layout.unpack_from(self.data, self.at)
        except struct.error as error:
            raise MalformedMessage("a message is cut short") from error
        self.at += layout.size
        return fields

    def string(self) -> str:
        end = self.data.find(b"\0", self.at)
        if end < 0:
            raise MalformedMessage("a name has no end")
        raw, self.at = self.data[self.at : end], end + 1
        try:
            return raw.decode()
        except UnicodeDecodeError as error:
            raise MalformedMessage("a name is not UTF-8") from error

    def octets(self, size: int) -> bytes:
        if size > len(self.data) - self.at:
            raise MalformedMessage("a message is cut short")
        self.at += size
        return self.data[self.at - size : self.at]

    def tuple(self) -> TupleData:
        values, self.at = tuple_data.decode(self.data, self.at)
        return values


_BYTE = struct.Struct("!B")
_U16 = struct.Struct("!H")
_U32 = struct.Struct("!I")
_BEGIN = struct.Struct("!QqI")
_COMMIT = struct.Struct("!BQQq")
_U64 = struct.Struct("!Q")
_COLUMN = struct.Struct("!Ii")
_TRUNCATE = struct.Struct("!IB")
_MESSAGE = struct.Struct("!BQ")


def decode(data: bytes, at: int = 0) -> Message:
    """Decode the message that fills `data` from offset `at`. Raises MalformedMessage or UnknownMessage."""
    cursor = _Cursor(data, at)
    (tag,) = cursor.unpack(_BYTE)
    decoder = _DECODERS.get(tag)
    if decoder is None:
        raise UnknownMessage(f"a replication message is of unknown type {chr(tag)!r}")
    message = decoder(cursor)
    if cursor.at != len(data):
        raise MalformedMessage(f"{len(data) - cursor.at} bytes are left behind a {type(message).__name__}")
    return message


def _begin(cursor: _Cursor) -> BeginMessage:
    final_lsn, commit_time, xid = cursor.unpack(_BEGIN)
    return BeginMessage(LSN(final_lsn), commit_time, xid)


def _commit(cursor: _Cursor) -> CommitMessage:
    flags, commit_lsn, end_lsn, commit_time = cursor.unpack(_COMMIT)
    return CommitMessage(flags, LSN(commit_lsn), LSN(end_lsn), commit_time)


def _origin(cursor: _Cursor) -> OriginMessage:
    (commit_lsn,) = cursor.unpack(_U64)
    return OriginMessage(LSN(commit_lsn), cursor.string())


def _relation(cursor: _Cursor) -> RelationMessage:
    (relation_id,) = cursor.unpack(_U32)
    schema, name = cursor.string(), cursor.string()
    (identity,) = cursor.unpack(_BYTE)
    (count,) = cursor.unpack(_U16)
    columns = []
    for _ in range(count):
        (flags,) = cursor.unpack(_BYTE)
        column_name = cursor.string()
        type_oid, modifier = cursor.unpack(_COLUMN)
        columns.append(RelationColumnInfo(bool(flags & 1), column_name, type_oid, modifier))
    return RelationMessage(relation_id, schema or "pg_catalog", name, chr(identity), tuple(columns))


def _type(cursor: _Cursor) -> TypeMessage:
    (type_oid,) = cursor.unpack(_U32)
    return TypeMessage(type_oid, cursor.string() or "pg_catalog", cursor.string())


def _insert(cursor: _Cursor) -> InsertMessage:
    relation_id, kind = (*cursor.unpack(_U32), *cursor.unpack(_BYTE))
    if kind != NEW:
        raise MalformedMessage(f"an insert holds a tuple of kind {chr(kind)!r}")
    return InsertMessage(relation_id, cursor.tuple())


def _update(cursor: _Cursor) -> UpdateMessage:
    relation_id, kind = (*cursor.unpack(_U32), *cursor.unpack(_BYTE))
    old_kind, old = None, None
    if kind in (KEY, OLD):
        old_kind, old = chr(kind), cursor.tuple()
        (kind,) = cursor.unpack(_BYTE)
    if kind != NEW:
        raise MalformedMessage(f"an update holds a tuple of kind {chr(kind)!r}")
    return UpdateMessage(relation_id, old_kind, old, cursor.tuple())


def _delete(cursor: _Cursor) -> DeleteMessage:
    relation_id, kind = (*cursor.unpack(_U32), *cursor.unpack(_BYTE))
    if kind not in (KEY, OLD):
        raise MalformedMessage(f"a delete holds a tuple of kind {chr(kind)!r}")
    return DeleteMessage(relation_id, chr(kind), cursor.tuple())


def _truncate(cursor: _Cursor) -> TruncateMessage:
    count, options = cursor.unpack(_TRUNCATE)
    ids = tuple(cursor.unpack(_U32)[0] for _ in range(count))
    return TruncateMessage(bool(options & 1), bool(options & 2), ids)


def _message(cursor: _Cursor) -> LogicalMessage:
    flags, lsn = cursor.unpack(_MESSAGE)
    prefix = cursor.string()
    (size,) = cursor.unpack(_U32)
    return LogicalMessage(bool(flags & 1), LSN(lsn), prefix, cursor.octets(size))


_DECODERS: dict[int, Callable[[_Cursor], Message]] = {
    BEGIN: _begin,
    COMMIT: _commit,
    ORIGIN: _origin,
    RELATION: _relation,
    TYPE: _type,
    INSERT: _insert,
    UPDATE: _update,
    DELETE: _delete,
    TRUNCATE: _truncate,
    MESSAGE: _message,
}
