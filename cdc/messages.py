"""The messages of logical replication, protocol version 1, under the names of Postgres' manual.

Source: https://www.postgresql.org/docs/current/protocol-logicalrep-message-formats.html
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

from transforms.position import LSN
from transforms.tuple_data import TupleData


@dataclass(frozen=True, slots=True)
class BeginMessage:
    """The start of a committed transaction."""

    final_lsn: LSN
    """The start of its commit record: what orders transactions, and the first half of an entry's id."""
    commit_time: int
    """Microseconds since 2000-01-01 UTC."""
    xid: int
    """The top-level transaction id, 32 bits."""


@dataclass(frozen=True, slots=True)
class CommitMessage:
    """The end of a transaction. `end_lsn` is what may be confirmed to the slot."""

    flags: int
    commit_lsn: LSN
    end_lsn: LSN
    commit_time: int


@dataclass(frozen=True, slots=True)
class OriginMessage:
    """Where a transaction came from, when it was itself replicated."""

    commit_lsn: LSN
    name: str


class RelationColumnInfo(NamedTuple):
    """A column of a Relation message."""

    is_key: bool
    name: str
    type_oid: int
    type_modifier: int


@dataclass(frozen=True, slots=True)
class RelationMessage:
    """The shape of a table's rows, sent before the first row of each connection and after changes."""

    relation_id: int
    schema: str
    name: str
    replica_identity: str
    """`d` default, `n` nothing, `f` full, `i` index."""
    columns: tuple[RelationColumnInfo, ...]


@dataclass(frozen=True, slots=True)
class TypeMessage:
    """The name of a type that is not built in."""

    type_oid: int
    schema: str
    name: str


@dataclass(frozen=True, slots=True)
class InsertMessage:
    """A new row."""

    relation_id: int
    new: TupleData


@dataclass(frozen=True, slots=True)
class UpdateMessage:
    """A changed row. `old` is None, the old key (`K`), or with REPLICA IDENTITY FULL the whole old row (`O`)."""

    relation_id: int
    old_kind: str | None
    old: TupleData | None
    new: TupleData


@dataclass(frozen=True, slots=True)
class DeleteMessage:
    """A deleted row: its old key (`K`), or the whole old row (`O`)."""

    relation_id: int
    old_kind: str
    old: TupleData


@dataclass(frozen=True, slots=True)
class TruncateMessage:
    """Tables emptied at once."""

    cascade: bool
    restart_identity: bool
    relation_ids: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class LogicalMessage:
    """What somebody wrote into the log with `pg_logical_emit_message`."""

    transactional: bool
    lsn: LSN
    prefix: str
    content: bytes


Message = (
    BeginMessage
    | CommitMessage
    | OriginMessage
    | RelationMessage
    | TypeMessage
    | InsertMessage
    | UpdateMessage
    | DeleteMessage
    | TruncateMessage
    | LogicalMessage
)
