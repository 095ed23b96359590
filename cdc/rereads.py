"""Rows that must be read again by their key, since the log did not bring them whole."""

from __future__ import annotations

import math
from collections import Counter, deque
from collections.abc import Mapping, Set
from dataclasses import dataclass, field
from itertools import islice
from typing import TypeAlias

from transforms.position import LSN


@dataclass(slots=True, eq=False)
class Rereads:
    """Rows to read again by their key, and the position that may not be passed before they are published."""

    held_end: LSN
    keys: dict[str, set[bytes]] = field(default_factory=dict)
    """By event; each key as JSON text."""
    notes: dict[str, dict[str, str]] = field(default_factory=dict)
    """By event: snapshot runs (id -> state) that are not so far before these rows are published."""


Taken: TypeAlias = Mapping[Rereads, Set[bytes]]
"""Which of whose keys are read again, the oldest first."""


class RereadQueue:
    """What waits to be read again. Only the stream's thread changes it."""

    def __init__(self) -> None:
        self.held: deque[Rereads] = deque()
        """What waits, the oldest first: nothing behind the first one's position counts as published."""
        self._waiting: dict[str, Counter[bytes]] = {}
        """By event: in how many of `held` each key is."""
        self._oldest: Mapping[str, LSN] = {}
        """Event -> the oldest position that its rows hold; another mapping each time, for other threads look at it."""

    @property
    def events(self) -> tuple[str, ...]:
        """Events with rows that wait, the longest waiting first. Any thread may ask."""
        return tuple(self._oldest)

    def are_behind(self, event: str, end: LSN) -> bool:
        """Whether all rows of an event that were to be read again up to `end` are published. Any thread may ask."""
        return end < self._oldest.get(event, math.inf)

    def add(self, event: str, keys: set[bytes], held_end: LSN) -> None:
        """Have rows read by their key; until they are published, `held_end` is not passed."""
        if not self.held or self.held[-1].held_end != held_end:
            self.held.append(Rereads(held_end))
        waiting = self.held[-1].keys.setdefault(event, set())
        self._waiting.setdefault(event, Counter()).update(keys - waiting)
        waiting |= keys
        if event not in self._oldest:
            self._oldest = {**self._oldest, event: held_end}

    def hold_note(self, event: str, run_id: str, state: str) -> bool:
        """Keep a run's state until the event's rows that wait now are published; False: none waits."""
        newest = next((reread for reread in reversed(self.held) if event in reread.keys), None)
        if newest is None:
            return False
        newest.notes.setdefault(event, {})[run_id] = state
        return True

    def holds(self, event: str, key: bytes) -> bool:
        """Whether consumers may not have this row yet because it is still to be read again."""
        waiting = self._waiting.get(event)
        return waiting is not None and key in waiting

    def oldest(self, event: str, limit: int) -> Taken:
        """The oldest rows of an event to read again, at most `limit`: what to give to `done`."""
        taken: dict[Rereads, Set[bytes]] = {}
        for reread in self.held:
            if limit <= 0:
                break
            if event in reread.keys:
                taken[reread] = frozenset(islice(reread.keys[event], limit))
                limit -= len(taken[reread])
        return taken

    def done(self, event: str, taken: Taken, left: Set[bytes] = frozenset()) -> list[tuple[str, str]]:
        """These rows but those that are `left` are published by the transaction in hand.

        Those go on waiting, and hold the oldest position of all that were taken. Returns the notes that were kept for
        the rows: none while some are left.
        """
        notes: dict[str, str] = {}
        for reread, keys in taken.items():
            reread.keys[event] -= keys
            self._forget(event, keys)
            if not reread.keys[event]:
                del reread.keys[event]
                notes |= reread.notes.pop(event, {})
        if left:
            oldest = next(iter(taken))
            waiting = oldest.keys.setdefault(event, set())
            oldest.notes[event], notes = oldest.notes.get(event, {}) | notes, {}
            self._waiting[event].update(left - waiting)
            waiting |= left
        while self.held and not self.held[0].keys:
            self.held.popleft()
        held: dict[str, LSN] = {}
        for reread in self.held:
            for each in reread.keys:
                held.setdefault(each, reread.held_end)
        self._oldest = held
        return list(notes.items())

    def _forget(self, event: str, keys: Set[bytes]) -> None:
        waiting = self._waiting[event]
        for key in keys:
            waiting[key] -= 1
            if not waiting[key]:
                del waiting[key]
