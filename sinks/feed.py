"""Batches ready to be applied: read from the stream, cut at the end of a source transaction, and compacted.

While the target works on one batch, the next large one is made in a thread; never more than one, so that memory stays
bounded. Each read begins at the entry where the one before it ended, and finds that entry there or refuses.
"""

from __future__ import annotations

import time
from bisect import bisect_right
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from typing import NamedTuple

from sinks.batch import ripe_count
from sinks.compaction import Step, compact
from sinks.entries import Entries, Entry
from sinks.pace import MOST_ENTRIES
from sinks.plausible import refuse_impossible
from sinks.stream import Meta, StreamReader
from transforms.errors import MalformedEntry
from transforms.failpoints import Failpoint, reached
from transforms.position import LSN, Position


class Place(NamedTuple):
    """What to read."""

    meta: Meta
    stream: str
    labels: dict[bytes, str]
    """The events in it that are mapped (as in entries -> as text)."""
    behind: Position
    goal: Position | None
    """The entry at which to stop; None: go on for ever."""
    limit: int = MOST_ENTRIES
    """How many entries to read at most, as long as no transaction is larger."""


@dataclass(frozen=True, slots=True)
class Batch:
    """What to apply in one transaction."""

    stream: str
    steps: list[Step]
    end: Position | None
    """Its last entry; None: there is nothing to apply yet."""
    size: int
    """How many entries it has."""
    committed_at: float | None
    """When that entry's transaction was committed, seconds since 1970."""
    seen: Position | None
    """The last entry that was read, part of the batch or not."""
    more: bool
    """The read hit its bound: more is waiting."""
    at_end: bool
    """Nothing was behind it when `published` was read."""
    published: LSN
    """Up to where the source is known to be published: what Redis said, or what was read though not said yet."""
    complete_to: LSN
    """Up to where the stream has been applied with it, when nothing is left before `published`; else 0/0."""
    read_at: float
    """When the reading of it began, monotonic seconds."""


class Feed:
    """Makes batches of one sink. Methods raise SinkError and MalformedEntry."""

    def __init__(self, reader: StreamReader, sink: str) -> None:
        self._reader = reader
        self._sink = sink
        self._thread = ThreadPoolExecutor(max_workers=1, thread_name_prefix="feed")
        self._begun: tuple[Place, Future[Batch]] | None = None

    def take(self, place: Place) -> Batch:
        """The batch at a place: the one that was begun, or made now, while another stream's is kept."""
        begun = self._begun
        if begun is None or begun[0].stream != place.stream:
            return self._make(place)
        self._begun = None
        return begun[1].result() if begun[0]._replace(limit=place.limit) == place else self._make(place)

    def begin(self, place: Place) -> None:
        """Have a batch made in the background, unless one has been begun that is not taken yet."""
        if self._begun is None:
            self._begun = place, self._thread.submit(self._make, place)

    def forget(self) -> None:
        """Drop what was begun: it may be of other circumstances."""
        self._begun = None

    def close(self) -> None:
        """End the thread, waiting for a read under way."""
        self._begun = None
        self._thread.shutdown(cancel_futures=True)

    def _make(self, place: Place) -> Batch:
        read_at = time.monotonic()
        read = self._reader.read(place.stream, place.meta, place.behind, place.limit)
        entries, force = read.entries, False
        refuse_impossible(entries, read.published)
        if (goal := place.goal) is not None:
            entries = entries[: bisect_right(entries, goal, key=position_of)]
            force = bool(entries) and position_of(entries[-1]) == goal
        is_small = place.limit < MOST_ENTRIES
        count = ripe_count(entries, full=read.full and not is_small, force=force)
        if not count and read.full and is_small:
            return self._make(place._replace(limit=MOST_ENTRIES))
        if count:
            reached(Failpoint.ENTRIES_READ)
        else:
            _refuse_foreign(entries)  # which would be waited with for ever: they end no transaction
        left = read.entries[count : count + 1]
        complete = read.at_end and (not left or position_of(left[0]).commit_lsn >= read.published)
        seen = position_of(read.entries[-1]) if read.entries else None
        return Batch(
            place.stream,
            compact(entries[:count], self._sink, place.labels),
            position_of(entries[count - 1]) if count else None,
            count,
            _committed_at(entries[count - 1]) if count else None,
            seen,
            read.full,
            read.at_end and not left,
            read.published if seen is None else max(read.published, seen.commit_lsn),
            read.published if complete else LSN(0),
            read_at,
        )


def position_of(entry: Entry) -> Position:
    """An entry's position."""
    return Position.parse(entry[0].decode())


def _refuse_foreign(entries: Entries) -> None:
    for entry_id, words in entries:
        if b"op" not in words[::2]:
            raise MalformedEntry(f"entry {entry_id.decode()} has no field 'op'")


def _committed_at(entry: Entry) -> float | None:
    words = entry[1]
    fields = words[::2]
    ts = words[fields.index(b"ts") * 2 + 1] if b"ts" in fields else b""
    return int(ts) / 1e6 if ts.isdigit() and len(ts) < 20 else None
