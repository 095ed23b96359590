"""Rows that must be read again by their key, since the log did not bring them whole.

A key waits once, however often its row is changed before it is read: the reading sees all that was delivered before its
low mark. What is changed while the row is being read waits anew.
"""

from __future__ import annotations

import math
import threading
from collections import Counter, deque
from collections.abc import Mapping, Set
from dataclasses import dataclass
from typing import Final

from transforms.position import LSN

MOST_KEYS: Final = 100_000
"""So many rows of an event wait at most, in about 20 MB: a snapshot of the event brings those that come beyond."""


@dataclass(frozen=True, slots=True, eq=False)
class Taken:
    """Rows of one event that are being read."""

    keys: frozenset[bytes]
    """Each as JSON text."""
    held_end: LSN
    """The position that may not be passed before they are published."""


class _Waiting:
    """The rows of one event, the oldest first."""

    __slots__ = ("added", "counts", "notes", "queue", "taken")

    def __init__(self) -> None:
        self.queue: deque[tuple[bytes, LSN]] = deque()
        """Keys that are not being read, each with the position that it holds."""
        self.counts: Counter[bytes] = Counter()
        """How often each is in `queue`: twice, where a reading that was begun before a change left it."""
        self.taken: Taken | None = None
        self.added = 0
        """How many places in the queue were ever given away."""
        self.notes: deque[tuple[int, str, str]] = deque()
        """(place, run, state): a run is not so far before all that is before this place is published."""

    @property
    def oldest(self) -> LSN | None:
        """The oldest position that a row holds."""
        if self.taken is not None:
            return self.taken.held_end
        return self.queue[0][1] if self.queue else None

    def append(self, key: bytes, held_end: LSN) -> None:
        if key not in self.counts:
            self.queue.append((key, held_end))
            self.counts[key] = 1
            self.added += 1

    def take(self, limit: int) -> Taken:
        keys, oldest = set[bytes](), self.queue[0][1]
        while self.queue and len(keys) < limit:
            key, _ = self.queue.popleft()
            keys.add(key)
            self.counts[key] -= 1
            if not self.counts[key]:
                del self.counts[key]
        self.taken = Taken(frozenset(keys), oldest)
        return self.taken

    def done(self, taken: Taken, left: Set[bytes]) -> list[tuple[str, str]]:
        """Returns the notes that no row holds any more."""
        assert self.taken is taken
        behind = self.added - len(self.queue)
        self.taken = None
        for key in left:  # in front of all others, whose place does not change
            self.queue.appendleft((key, taken.held_end))
            self.counts[key] += 1
        if left:  # what was noted behind rows that were taken waits for these
            self.notes = deque((max(place, behind), run_id, state) for place, run_id, state in self.notes)
        released = []
        first = self.added - len(self.queue)
        while self.notes and self.notes[0][0] <= first:
            _, run_id, state = self.notes.popleft()
            released.append((run_id, state))
        return released


class RereadQueue:
    """What waits to be read again. Only the stream's thread changes it."""

    def __init__(self) -> None:
        self.held_end: LSN | None = None
        """Nothing behind it counts as published; None: nothing waits."""
        self.work = threading.Event()
        """Set when an event has something that waits, for whoever reads."""
        self._waiting: dict[str, _Waiting] = {}
        self._oldest: Mapping[str, LSN] = {}
        """Event -> the oldest position that its rows hold; another mapping each time, for other threads look at it."""
        self._left_to_run: set[str] = set()

    @property
    def events(self) -> tuple[str, ...]:
        """Events with rows that wait, the longest waiting first. Any thread may ask."""
        return tuple(self._oldest)

    def are_behind(self, event: str, end: LSN) -> bool:
        """Whether all rows of an event that were to be read again up to `end` are published. Any thread may ask."""
        return end < self._oldest.get(event, math.inf)

    def add(self, event: str, keys: Set[bytes], held_end: LSN) -> None:
        """Have rows read by their key; until they are published, `held_end` is not passed."""
        waiting = self._waiting.get(event)
        if waiting is None:
            waiting = self._waiting[event] = _Waiting()
        for key in keys:
            waiting.append(key, held_end)
        if event not in self._oldest:
            self._refresh()
            self.work.set()

    def holds(self, event: str, key: bytes) -> bool:
        """Whether consumers may not have this row yet because it is still to be read again."""
        waiting = self._waiting.get(event)
        return waiting is not None and (
            key in waiting.counts or (waiting.taken is not None and key in waiting.taken.keys)
        )

    def hold_note(self, event: str, run_id: str, state: str) -> bool:
        """Keep a run's state until the event's rows that wait now are published; False: none waits."""
        if event not in self._oldest:
            return False
        waiting = self._waiting[event]
        waiting.notes.append((waiting.added, run_id, state))
        return True

    def take(self, event: str, limit: int) -> Taken | None:
        """The oldest rows of an event, at most `limit`, which are being read from now on, up to `done`."""
        waiting = self._waiting.get(event)
        return waiting.take(limit) if waiting is not None and waiting.queue else None

    def done(self, event: str, taken: Taken, left: Set[bytes] = frozenset()) -> list[tuple[str, str]]:
        """These rows but those that are `left` are published by the transaction in hand.

        Those go on waiting before all others, and hold the oldest position of all that were taken. Returns the notes
        (run, state) that were kept for the rows.
        """
        waiting = self._waiting[event]
        released = waiting.done(taken, left)
        if waiting.oldest is None:
            del self._waiting[event]
        self._refresh()
        return released

    def _refresh(self) -> None:
        oldest = {event: end for event, waiting in self._waiting.items() if (end := waiting.oldest) is not None}
        self._oldest = dict(sorted(oldest.items(), key=lambda item: item[1]))
        self.held_end = next(iter(self._oldest.values()), None)

    # --- too many of them --------------------------------------------------------------------------------------------

    def is_full(self, event: str) -> bool:
        """Whether as many rows of an event wait as may."""
        waiting = self._waiting.get(event)
        return waiting is not None and len(waiting.queue) >= MOST_KEYS

    def leave_to_run(self, event: str) -> None:
        """A whole snapshot of the event will be begun, and brings what would have to be read again up to there."""
        self._left_to_run.add(event)

    def is_left_to_run(self, event: str) -> bool:
        """Whether such a snapshot has not begun yet."""
        return event in self._left_to_run

    def run_begins(self, event: str) -> None:
        """A whole snapshot of the event begins: what is delivered from now on is read again as ever."""
        self._left_to_run.discard(event)
