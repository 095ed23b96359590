"""Entries on their way to the streams, as items of the append script."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from cdc import append
from transforms.position import LSN


@dataclass(frozen=True, slots=True)
class StreamBatch:
    """Entries for one stream."""

    items: list[bytes]
    words: int
    """How many words all items have together."""
    count: int
    """How many of them are entries."""


@dataclass(frozen=True, slots=True)
class Batch:
    """What is published in one go."""

    streams: Mapping[str, StreamBatch]
    """By stream name, without pipeline and epoch."""
    end: LSN
    """When this batch is in, every stream has everything before this position."""
    notes: Mapping[str, str] = field(default_factory=dict)
    """Snapshot runs whose state is stored together with `end`: run id -> JSON."""

    def joined(self, later: Batch) -> Batch:
        """What is to be stored when this batch and a later one are in."""
        return Batch({**self.streams, **later.streams}, later.end, {**self.notes, **later.notes})

    @property
    def count(self) -> int:
        return sum(stream.count for stream in self.streams.values())


class StreamBuffer:
    """Collects one stream's entries; the newest is held back until it is known whether it ends its transaction."""

    __slots__ = ("count", "items", "newest_words", "transaction", "words")

    def __init__(self) -> None:
        self.items: list[bytes] = []
        self.words = 0
        self.count = 0
        self.newest_words = 0
        self.transaction: bytes | None = None
        """The item of the transaction in hand, if it has been added."""

    def begin_transaction(self, item: bytes) -> None:
        """The entries that follow are of another transaction, or in another batch, than those before."""
        self.transaction = item
        self.items.append(item)
        self.words += append.TRANSACTION_WORDS

    def end_transaction(self) -> None:
        """Mark the newest entry as the last of its transaction."""
        self.items[-1] = append.ending(self.items[-1])
        self.transaction = None

    def take(self, *, hold_newest: bool) -> StreamBatch | None:
        """Take out what may be published, or None when there is nothing."""
        held = self.items.pop() if hold_newest else None
        taken = StreamBatch(self.items, self.words - (self.newest_words if held else 0), self.count - bool(held))
        self.items, self.words, self.count = [], 0, 0
        if held:
            assert self.transaction is not None
            self.begin_transaction(self.transaction)
            self.items.append(held)
            self.words += self.newest_words
            self.count = 1
        return taken if taken.count else None


class BatchBuilder:
    """Collects entries of all streams into batches.

    `limit_count` and `limit_bytes` say when a batch is full; a single entry may be larger.
    """

    def __init__(self, end: LSN, limit_count: int, limit_bytes: int) -> None:
        self.end: int = end
        self.count = 0
        self.bytes = 0
        self._limit_count = limit_count
        self._limit_bytes = limit_bytes
        self._buffers: dict[str, StreamBuffer] = {}
        self._open: dict[str, StreamBuffer] = {}
        """The streams that the transaction in hand has entries in."""
        self._transaction = b""
        self._notes: dict[str, str] = {}
        self._notes_of_transaction: dict[str, str] = {}
        self._taken_end = end

    def begin_transaction(self, ts: bytes, tx: bytes) -> None:
        """The entries that follow are of this transaction."""
        self._transaction = append.transaction_item(ts, tx)

    def add(self, stream: str, item: bytes, words: int) -> bool:
        """Append an entry of the transaction in hand; returns whether the batch is full and should go."""
        buffer = self._opened(stream)
        buffer.items.append(item)
        buffer.words += words
        buffer.newest_words = words
        buffer.count += 1
        self.count += 1
        self.bytes += len(item)
        return self.count >= self._limit_count or self.bytes >= self._limit_bytes

    def add_all(self, stream: str, items: list[bytes], size: int, words: int) -> bool:
        """Append entries of the same number of `words`, at least one; `size`: of all of them, in bytes. See `room`."""
        buffer = self._opened(stream)
        buffer.items += items
        buffer.words += words * len(items)
        buffer.newest_words = words
        buffer.count += len(items)
        self.count += len(items)
        self.bytes += size
        return self.count >= self._limit_count or self.bytes >= self._limit_bytes

    def add_transactions(self, stream: str, items: list[bytes], rows: int, transactions: int, size: int) -> None:
        """Append whole transactions of plain upserts that do not fill the batch, while none is in hand.

        `size`: of the rows' items.
        """
        assert not self._open
        buffer = self._buffer(stream)
        buffer.items += items
        buffer.words += append.TRANSACTION_WORDS * transactions + append.UPSERT_WORDS * rows
        buffer.count += rows
        self.count += rows
        self.bytes += size

    @property
    def room(self) -> tuple[int, int]:
        """With how many more entries, or bytes of them, the batch is full; there always is room for one."""
        return max(1, self._limit_count - self.count), max(1, self._limit_bytes - self.bytes)

    def _opened(self, stream: str) -> StreamBuffer:
        buffer = self._open.get(stream)
        if buffer is None:
            buffer = self._open[stream] = self._buffer(stream)
            buffer.begin_transaction(self._transaction)
        return buffer

    def _buffer(self, stream: str) -> StreamBuffer:
        if (buffer := self._buffers.get(stream)) is None:
            buffer = self._buffers[stream] = StreamBuffer()
        return buffer

    def end_transaction(self) -> None:
        """The transaction in hand is over: no entry is held back."""
        for buffer in self._open.values():
            buffer.end_transaction()
        self._open.clear()
        if self._notes_of_transaction:
            self._notes |= self._notes_of_transaction
            self._notes_of_transaction = {}

    def note(self, run_id: str, state: str) -> None:
        """Store a snapshot run's state when the transaction in hand has wholly been published."""
        self._notes_of_transaction[run_id] = state

    @property
    def has_content(self) -> bool:
        """Whether there are entries or notes to publish, not only a position to store."""
        return self.count > len(self._open) or bool(self._notes)

    @property
    def taken_end(self) -> LSN:
        """The position of the batch that was taken last."""
        return self._taken_end

    @property
    def worth_taking(self) -> bool:
        """Whether there is something to publish or to store."""
        return self.has_content or self.end > self._taken_end

    def take(self) -> Batch:
        """Take out what may be published."""
        streams = {}
        for stream, buffer in self._buffers.items():
            if buffer.count and (taken := buffer.take(hold_newest=stream in self._open)):
                streams[stream] = taken
        self._taken_end = LSN(self.end)
        batch = Batch(streams, self._taken_end, self._notes)
        self._notes = {}
        self.count = len(self._open)
        self.bytes = 0
        return batch
