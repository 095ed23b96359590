"""Entries on their way to the streams, as items (`cdc.append`)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from cdc import append
from transforms.position import LSN


@dataclass(frozen=True, slots=True)
class StreamBatch:
    """Entries for one stream."""

    items: list[bytes]

    @property
    def count(self) -> int:
        return len(self.items)


@dataclass(frozen=True, slots=True)
class Batch:
    """What is published in one go."""

    streams: Mapping[str, StreamBatch]
    """By stream name, without pipeline and epoch."""
    end: LSN
    """When this batch is in, every stream has everything before this position."""
    notes: Mapping[str, str] = field(default_factory=dict)
    """Snapshot runs whose state is stored together with `end`: run id -> JSON."""
    parked: Mapping[str, str] = field(default_factory=dict)
    """The same of rows that a hook failed on: field of the hash -> JSON, or nothing where it is parked no more."""

    def joined(self, later: Batch) -> Batch:
        """What is to be stored when this batch and a later one are in."""
        return Batch(
            {**self.streams, **later.streams},
            later.end,
            {**self.notes, **later.notes},
            {**self.parked, **later.parked},
        )

    @property
    def count(self) -> int:
        return sum(stream.count for stream in self.streams.values())


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
        self._items: dict[str, list[bytes]] = {}
        """By stream. The newest is held back until it is known whether it ends its transaction."""
        self._open: set[str] = set()
        """The streams that the transaction in hand has entries in."""
        self._notes: dict[str, str] = {}
        self._notes_of_transaction: dict[str, str] = {}
        self._parked: dict[str, str] = {}
        self._parked_by_transaction: dict[str, str] = {}
        self._taken_end = end

    def add(self, stream: str, item: bytes) -> bool:
        """Append an entry of the transaction in hand; returns whether the batch is full and should go."""
        return self.add_all(stream, [item], len(item))

    def add_all(self, stream: str, items: list[bytes], size: int) -> bool:
        """Append several, at least one; `size`: of all of them, in bytes. See `room`."""
        self._open.add(stream)
        self.add_transactions(stream, items, size)
        return self.count >= self._limit_count or self.bytes >= self._limit_bytes

    def add_transactions(self, stream: str, items: list[bytes], size: int) -> None:
        """Append the entries of whole transactions, the last one of each marked as such."""
        self._items.setdefault(stream, []).extend(items)
        self.count += len(items)
        self.bytes += size

    @property
    def room(self) -> tuple[int, int]:
        """With how many more entries, or bytes of them, the batch is full; there always is room for one."""
        return max(1, self._limit_count - self.count), max(1, self._limit_bytes - self.bytes)

    def end_transaction(self) -> None:
        """The transaction in hand is over: no entry is held back."""
        for stream in self._open:
            items = self._items[stream]
            items[-1] = append.ending(items[-1])
        self._open.clear()
        if self._notes_of_transaction:
            self._notes |= self._notes_of_transaction
            self._notes_of_transaction = {}
        if self._parked_by_transaction:
            self._parked |= self._parked_by_transaction
            self._parked_by_transaction = {}

    def note(self, run_id: str, state: str) -> None:
        """Store a snapshot run's state when the transaction in hand has wholly been published."""
        self._notes_of_transaction[run_id] = state

    def park(self, name: str, text: str) -> None:
        """Store what is known of a parked row when the transaction in hand has wholly been published."""
        self._parked_by_transaction[name] = text

    @property
    def has_content(self) -> bool:
        """Whether there are entries or notes to publish, not only a position to store."""
        return self.count > len(self._open) or bool(self._notes) or bool(self._parked)

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
        held = {stream: [self._items[stream].pop()] for stream in self._open}
        streams = {stream: StreamBatch(items) for stream, items in self._items.items() if items}
        self._items = held
        self._taken_end = LSN(self.end)
        batch = Batch(streams, self._taken_end, self._notes, self._parked)
        self._notes, self._parked = {}, {}
        self.count = len(self._open)
        self.bytes = 0
        return batch
