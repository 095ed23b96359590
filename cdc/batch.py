"""Entries on their way to the streams, in the flat form that the append script takes."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from transforms import wire
from transforms.position import LSN


@dataclass(frozen=True, slots=True)
class StreamBatch:
    """Entries for one stream."""

    words: list[bytes]
    """For each entry its id, the number of its words, its words."""
    count: int


@dataclass(frozen=True, slots=True)
class Batch:
    """What is published in one go."""

    streams: Mapping[str, StreamBatch]
    """By stream name, without pipeline and epoch."""
    end: LSN
    """When this batch is in, every stream has everything before this position."""
    notes: Mapping[str, str] = field(default_factory=dict)
    """Snapshot runs whose state is stored together with `end`: run id -> JSON."""

    @property
    def count(self) -> int:
        return sum(stream.count for stream in self.streams.values())


class StreamBuffer:
    """Collects one stream's entries; the newest is held back until it is known whether it ends its transaction."""

    __slots__ = ("count", "newest", "words")

    def __init__(self) -> None:
        self.words: list[bytes] = []
        self.count = 0
        self.newest = 0

    def end_transaction(self) -> None:
        """Mark the newest entry as the last of its transaction."""
        size = self.newest + 1
        self.words[size] = b"%d" % (int(self.words[size]) + len(wire.END_OF_TRANSACTION))
        self.words += wire.END_OF_TRANSACTION

    def take(self, *, hold_newest: bool) -> StreamBatch | None:
        """Take out what may be published, or None when there is nothing."""
        if not hold_newest:
            words, count = self.words, self.count
            self.words, self.count = [], 0
        else:
            words, count = self.words[: self.newest], self.count - 1
            self.words, self.count = self.words[self.newest :], 1
        self.newest = 0
        return StreamBatch(words, count) if count > 0 else None


class BatchBuilder:
    """Collects entries of all streams into batches.

    `limit_count` and `limit_bytes` say when a batch is full; a single entry may be larger.
    """

    def __init__(self, end: LSN, limit_count: int, limit_bytes: int) -> None:
        self.end = end
        self.count = 0
        self.bytes = 0
        self._limit_count = limit_count
        self._limit_bytes = limit_bytes
        self._buffers: dict[str, StreamBuffer] = {}
        self._open: set[str] = set()
        self._notes: dict[str, str] = {}
        self._notes_of_transaction: dict[str, str] = {}
        self._taken_end = end

    def add(self, stream: str, entry_id: bytes, words: list[bytes], size_bytes: int) -> None:
        """Append an entry of the transaction in hand; `size_bytes` is about what it weighs."""
        if stream in self._open:
            buffer = self._buffers[stream]
        else:
            self._open.add(stream)
            buffer = self._buffers.setdefault(stream, StreamBuffer())
        buffer.newest = len(buffer.words)
        buffer.words += (entry_id, b"%d" % len(words), *words)
        buffer.count += 1
        self.count += 1
        self.bytes += size_bytes

    def end_transaction(self) -> None:
        """The transaction in hand is over: no entry is held back."""
        for stream in self._open:
            self._buffers[stream].end_transaction()
        self._open.clear()
        if self._notes_of_transaction:
            self._notes |= self._notes_of_transaction
            self._notes_of_transaction = {}

    def note(self, run_id: str, state: str) -> None:
        """Store a snapshot run's state when the transaction in hand has wholly been published."""
        self._notes_of_transaction[run_id] = state

    @property
    def full(self) -> bool:
        """Whether the batch should go."""
        return self.count >= self._limit_count or self.bytes >= self._limit_bytes

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
        batch = Batch(streams, self.end, self._notes)
        self._notes = {}
        self._taken_end = self.end
        self.count = len(self._open)
        self.bytes = 0
        return batch
