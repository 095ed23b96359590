"""Which rows of an event belong to related rows that were changed."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Set
from dataclasses import dataclass, field
from typing import Final

from cdc.catalog import Table
from cdc.related.mapping import EmbedMapping
from cdc.snapshot.subject import Subject
from cdc.source import nesting
from cdc.source.connection import Source
from cdc.source.nesting import Touched
from cdc.source.relations import fitting
from transforms import copy_text

MOST_PARENTS: Final = 1_000
"""As many as are found and read at once for the rows of one embed; values that lead to more become a fan-out."""


class Affected:
    """The rows that some values of one embed lead to. Methods raise SourceError."""

    def __init__(self, subject: Subject, related: str, values: Iterable[str | bytes]) -> None:
        """`related`: the embed's path. Raises KeyError where the event has none of this path."""
        as_bytes = (value.encode() if isinstance(value, str) else value for value in values)
        self._subject = subject
        self._touched = Touched(subject.mapping.ways[related], tuple(sorted(as_bytes)))

    def leave_unfitting(self, source: Source) -> None:
        """Leave out the values that no row can have any more; see `fitting`."""
        values = fitting(source, nesting.touched_types(self._touched.way), self._touched.values)
        self._touched = Touched(self._touched.way, tuple(sorted(values)))

    def count(self, source: Source) -> int:
        """How many there are about: one counts as often as values, or rows between, lead to it."""
        return sum(nesting.count_parents(source, self._table, self._touched, None).values())

    def behind(self, source: Source, after: tuple[str, ...] | None, limit: int) -> list[tuple[bytes, tuple[str, ...]]]:
        """Those behind the key `after` in its order: the event's key, and its columns' texts."""
        lines = nesting.parents_behind(source, self._table, self._subject.key_columns, self._touched, after, limit)
        texts = [tuple((value or b"").decode() for value in copy_text.values(line)) for line in lines]
        return list(zip(self._subject.keys(lines), texts, strict=True))

    @property
    def _table(self) -> Table:
        return self._subject.mapping.table


@dataclass(slots=True)
class Found:
    """What some touched values come to: rows to read now, fan-outs, and values that wait for their turn."""

    keys: set[bytes] = field(default_factory=set)
    fan_outs: dict[str, Set[bytes]] = field(default_factory=dict)
    """By the embed's path."""
    left: dict[str, Set[bytes]] = field(default_factory=dict)


def find(source: Source, subject: Subject, touched: Mapping[str, Set[bytes]], room: int) -> Found:
    """The rows that values of each embed (by its path) lead to, about as many as there is room for at once.

    Raises SourceError.
    """
    found = Found()
    for related, values in touched.items():
        if values:
            _find(source, subject, related, values, room, found)
    return found


def _find(source: Source, subject: Subject, related: str, values: Set[bytes], room: int, found: Found) -> None:
    way, table = subject.mapping.ways[related], subject.mapping.table
    room = min(room, MOST_PARENTS)  # one more than these is all that is asked for, which tells that there are others
    lines = _parents(source, subject, way, values)
    if len(lines) > room:
        counts = nesting.count_parents(source, table, Touched(way, tuple(sorted(values))), MOST_PARENTS + 1)
        found.fan_outs[related] = {value for value, count in counts.items() if count > MOST_PARENTS}
        now = set[bytes]()
        for value, count in counts.items():
            if count <= (room if now else MOST_PARENTS):
                now.add(value)
                room -= count
        found.left[related] = counts.keys() - now - found.fan_outs[related]
        lines = _parents(source, subject, way, now) if now else []
    found.keys.update(subject.keys(lines))


def _parents(source: Source, subject: Subject, way: tuple[EmbedMapping, ...], values: Set[bytes]) -> list[bytes]:
    touched = Touched(way, tuple(sorted(values)))
    return nesting.parents(source, subject.mapping.table, subject.key_columns, touched, MOST_PARENTS + 1)
