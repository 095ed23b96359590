"""Parked events: what the replica refused, kept in `cdc.dead_event` in the transaction that goes on without it.

An event with the full state of a key (or its delete) heals what is parked of that key: those rows are removed. A
partial event of a key that has a parked one is parked as well, since it would make a row that never was.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from sinks.compaction import Change
from sinks.errors import Refusal, TooManyParked
from sinks.postgres import Database
from transforms.position import Position

ROW_MISSING = Refusal("", "RowMissing")
"""A partial event whose row is not in the replica."""
BLOCKED = Refusal("", "EarlierEventParked")

_COLUMNS = (
    b"SELECT id, stream, commit_lsn::text, ordinal, type, op, key, state, partial, quoted, rev, sqlstate, message,"
    b" parked_at, attempts FROM cdc.dead_event WHERE pipeline = %s AND sink = %s"
)
_SAME_KEYS = (
    b" WHERE pipeline = %s AND sink = %s AND type = %s"
    b" AND sha256(key) IN (SELECT sha256(k) FROM unnest(%s::bytea[]) AS k)"
)


@dataclass(frozen=True, slots=True)
class DeadEvent:
    """A parked event."""

    id: int
    stream: str
    type: str
    op: str
    change: Change
    sqlstate: str
    message: str
    parked_at: Any
    attempts: int


class ParkingLot:
    """Parks events of one stream in the caller's transaction."""

    def __init__(self, database: Database, pipeline: str, sink: str, max_in_a_row: int) -> None:
        """`max_in_a_row`: from how many refused events in a row on the table, and not the events, is at fault."""
        self._database = database
        self._sink = (pipeline, sink)
        self._max_in_a_row = max_in_a_row
        self._stream = ""
        self._occupied = False
        self._in_a_row_before = 0
        self.in_a_row = 0
        self.parked = 0
        """How many events the batch in hand has parked."""

    def begin(self, stream: str, *, occupied: bool) -> None:
        """A transaction begins. `occupied`: there are parked events of this sink."""
        self._stream = stream
        self._occupied = occupied
        self.in_a_row = self._in_a_row_before
        self.parked = 0

    def committed(self) -> None:
        """The transaction has been committed."""
        if not self.parked:
            self.in_a_row = 0
        self._in_a_row_before = self.in_a_row

    def succeeded(self) -> None:
        """A row was applied."""
        self.in_a_row = 0

    def park(self, label: str, change: Change, refusal: Refusal) -> None:
        """Keep an event that cannot be applied. Raises TooManyParked."""
        self.in_a_row += 1
        self.parked += 1
        if self.in_a_row > self._max_in_a_row:
            raise TooManyParked(
                f"more than {self._max_in_a_row} events of {label} in a row are refused, the last: {refusal}"
            )
        self._occupied = True
        position = Position.parse(change.entry_id.decode())
        self._database.execute(
            b"INSERT INTO cdc.dead_event (pipeline, sink, stream, commit_lsn, ordinal, type, op, key, state, partial,"
            b" quoted, rev, sqlstate, message)"
            b" VALUES (%s, %s, %s, %s::pg_lsn, %s, %s, %s, %s, %s, %s::text[], %s::text[], %s, %s, %s)",
            [
                *self._sink,
                self._stream,
                str(position.commit_lsn),
                position.ordinal,
                label,
                "delete" if change.state is None else "upsert",
                change.key,
                change.state,
                list(change.partial),
                list(change.quoted),
                change.rev,
                refusal.sqlstate,
                str(refusal),
            ],
        )

    def heal(self, label: str, changes: Sequence[Change]) -> None:
        """Full states of these keys are about to be applied: what is parked of them is of no use any more."""
        if self._occupied:
            keys = [change.key for change in changes]
            self._database.execute(b"DELETE FROM cdc.dead_event" + _SAME_KEYS, [*self._sink, label, keys])

    def heal_all(self, label: str) -> None:
        """Every row of the table is gone."""
        if self._occupied:
            self._database.execute(
                b"DELETE FROM cdc.dead_event WHERE pipeline = %s AND sink = %s AND type = %s", [*self._sink, label]
            )

    def blocked(self, label: str, changes: Sequence[Change]) -> set[bytes]:
        """Those keys that have a parked event."""
        if not self._occupied:
            return set()
        keys = [change.key for change in changes]
        found = self._database.rows(b"SELECT key FROM cdc.dead_event" + _SAME_KEYS, [*self._sink, label, keys])
        return {key for (key,) in found}


class DeadEvents:
    """What a person does with the parked events of one sink, in the caller's transaction."""

    def __init__(self, database: Database, pipeline: str, sink: str) -> None:
        self._database = database
        self._sink = (pipeline, sink)

    def all(self) -> list[DeadEvent]:
        """In the order of the source."""
        return [_event(row) for row in self._database.rows(_COLUMNS + b" ORDER BY commit_lsn, ordinal, id", self._sink)]

    def of(self, ids: Sequence[int]) -> list[DeadEvent]:
        """Those of these ids that are (still) there, in the order of the source; they stay as they are meanwhile."""
        query = _COLUMNS + b" AND id = ANY(%s) ORDER BY commit_lsn, ordinal, id FOR UPDATE"
        return [_event(row) for row in self._database.rows(query, [*self._sink, list(ids)])]

    def earlier(self, event: DeadEvent) -> list[int]:
        """Ids of parked events of the same key that come before this one."""
        before = b" AND (commit_lsn, ordinal, id) < (SELECT commit_lsn, ordinal, id FROM cdc.dead_event WHERE id = %s)"
        rows = self._database.rows(
            b"SELECT id FROM cdc.dead_event" + _SAME_KEYS + before,
            [*self._sink, event.type, [event.change.key], event.id],
        )
        return [row[0] for row in rows]

    def lock_stream(self, stream: str) -> None:
        """Keep the worker from applying a batch meanwhile."""
        self._database.rows(
            b"SELECT FROM cdc.checkpoint WHERE pipeline = %s AND sink = %s AND stream = %s FOR UPDATE",
            [*self._sink, stream],
        )

    def failed_again(self, event: DeadEvent, refusal: Refusal) -> None:
        """Note an attempt that did not help."""
        self._database.execute(
            b"UPDATE cdc.dead_event SET attempts = attempts + 1, sqlstate = %s, message = %s WHERE id = %s",
            [refusal.sqlstate, str(refusal), event.id],
        )

    def remove(self, ids: Sequence[int]) -> int:
        """Forget events; returns how many there were."""
        return self._database.execute(
            b"DELETE FROM cdc.dead_event WHERE pipeline = %s AND sink = %s AND id = ANY(%s)", [*self._sink, list(ids)]
        )


def _event(row: tuple[Any, ...]) -> DeadEvent:
    id_, stream, lsn, ordinal, type_, op, key, state, partial, quoted, rev, sqlstate, message, parked_at, attempts = row
    high, low = lsn.split("/")
    entry_id = b"%d-%d" % (int(high, 16) << 32 | int(low, 16), ordinal)
    change = Change(entry_id, bytes(key), None if state is None else bytes(state), tuple(partial), tuple(quoted), rev)
    return DeadEvent(id_, stream, type_, op, change, sqlstate, message, parked_at, attempts)
