"""The transaction in hand: what its entries have in common, and the ids that its messages give."""

from __future__ import annotations

import struct

from cdc import append
from cdc.walsender import XLOG_DATA_HEADER_BYTES as HEADER
from transforms import wire
from transforms.position import SLOTS_PER_MESSAGE, Position
from transforms.tuple_data import MalformedMessage

_BEGIN = struct.Struct("!QqI")
_COMMIT = struct.Struct("!BQQq")


class TransactionInHand:
    """The last transaction that was begun; `is_open` until its Commit."""

    __slots__ = ("_slots", "_slots_of", "commit_lsn", "id_prefix", "is_open", "n", "tail", "ts", "tx", "xid")

    def __init__(self) -> None:
        self.is_open = False
        self.commit_lsn = 0
        self.ts = b"0"
        """When it was committed, in microseconds since 1970."""
        self.xid = 0
        self.tx = b"0"
        self.tail = b""
        """What its items end with."""
        self.id_prefix = b""
        self.n = 0
        """The number of the message in hand."""
        self._slots_of = 0
        self._slots: dict[str, int] = {}
        """How many entries message number `_slots_of` has given in each stream."""

    def begin(self, frame: bytes) -> None:
        """A Begin message. Raises MalformedMessage."""
        if self.is_open or len(frame) != HEADER + 1 + _BEGIN.size:
            raise MalformedMessage("a Begin message in the middle of a transaction, or cut short")
        self.commit_lsn, commit_time, self.xid = _BEGIN.unpack_from(frame, HEADER + 1)
        self.is_open = True
        self.ts = ts = b"%d" % (commit_time + wire.MICROSECONDS_2000)
        self.tx = tx = b"%d" % self.xid
        self.id_prefix = b"%d-" % self.commit_lsn
        self.tail = append.tail(ts, tx)
        self.n = self._slots_of = 0

    def commit(self, frame: bytes) -> int:
        """A Commit message; returns the transaction's end LSN. Raises MalformedMessage."""
        if not self.is_open or len(frame) != HEADER + 1 + _COMMIT.size:
            raise MalformedMessage("a Commit message without a transaction, or cut short")
        _, lsn, end, _ = _COMMIT.unpack_from(frame, HEADER + 1)
        if lsn != self.commit_lsn:
            raise MalformedMessage("a Commit message of another transaction than the one in hand")
        self.is_open = False
        return int(end)

    def count(self) -> None:
        """Another message of it is in hand. Raises MalformedMessage."""
        if not self.is_open:
            raise MalformedMessage("a change outside of a transaction")
        self.n += 1

    def sole_id(self) -> bytes:
        """The id of the message's entry, where that has but one in all streams."""
        return b"%b%d000000" % (self.id_prefix, self.n)

    def next_id(self, stream: str) -> bytes:
        """The id of the next entry that the message in hand gives in a stream."""
        ordinal = self.free_ordinal(stream)
        self._slots[stream] += 1
        return b"%b%d" % (self.id_prefix, ordinal)

    def free_ordinal(self, stream: str) -> int:
        """What the next id in a stream ends with, if it is given."""
        if self.n != self._slots_of:
            self._slots_of, self._slots = self.n, {}
        return self.n * SLOTS_PER_MESSAGE + self._slots.setdefault(stream, 0)

    def given(self, stream: str, count: int) -> None:
        """So many ids from the free one on are given."""
        self._slots[stream] += count

    def is_up_to(self, end: Position) -> bool:
        """Whether the message in hand lies not behind `end`."""
        return (self.commit_lsn, self.n * SLOTS_PER_MESSAGE) <= end
