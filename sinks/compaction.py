"""What a batch comes to: the last state of each key, ordered so that few statements apply it.

Intermediate states may be merged, never reordered. Plain upserts, nearly all there is, are read straight from their
words (see `Entries.take_plain`); everything else goes through `wire.read`.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import NamedTuple

from sinks.entries import Entries, Entry
from transforms import wire
from transforms.event import Delete, Mark, Truncate, Upsert


class Change(NamedTuple):
    """What happened to one key."""

    entry_id: bytes
    key: bytes
    state: bytes | None
    """None: the row is gone."""
    partial: tuple[str, ...] = ()
    quoted: tuple[str, ...] = ()
    rev: int = 1


class Group(NamedTuple):
    """Upserts of different keys that have the same fields, so that one statement applies them."""

    partial: tuple[str, ...]
    quoted: tuple[str, ...]
    rev: int
    changes: list[Change]


@dataclass(frozen=True, slots=True)
class Round:
    """At most one change of each key: first the deletes, then the upserts."""

    deletes: list[Change]
    upserts: list[Group]


@dataclass(frozen=True, slots=True)
class TypeChanges:
    """What happened to the rows of one event type."""

    truncate: bool
    """Whether every row goes before the rounds are applied."""
    rounds: list[Round]
    own: bool = False
    """Whether these are rows of a snapshot made for this sink alone; they never share a segment with others."""

    @property
    def upserts(self) -> int:
        """How many rows are written."""
        return sum([len(group.changes) for round_ in self.rounds for group in round_.upserts])


Segment = dict[str, TypeChanges]
"""By event label."""

Step = Segment | Mark
"""A batch is a list of steps: marks stand between the rows that came before and after them."""


@dataclass(slots=True)
class _Collected:
    truncate: bool = False
    latest: dict[bytes, Change] = field(default_factory=dict)
    behind: dict[bytes, list[Change]] = field(default_factory=dict)
    """Partial upserts that came after the change in `latest`."""
    is_plain: bool = True
    """Whether all were plain upserts."""


_PLAIN = ((), (), 1)
"""What a plain upsert's change has besides id, key and state."""


def compact(entries: Entries, sink: str, labels: Mapping[bytes, str]) -> list[Step]:
    """Merge the entries that concern this sink: mapped types (`labels`: as in entries -> as text), not for another.

    Raises MalformedEntry.
    """
    steps: list[Step] = []
    collected = {label: _Collected() for label in labels}
    at, owns = 0, False
    while at < len(entries):
        if owns and not _is_addressed(entries[at]):
            _close(steps, collected, labels, own=True)
            owns = False
        if not owns:
            kept = {label: (rows.latest, rows.behind) for label, rows in collected.items()}
            at = entries.take_plain(at, kept, Change, _PLAIN)
        if at == len(entries):
            break
        entry_id, words = entries[at]
        at += 1
        event = wire.read_words(entry_id, words)
        if event.to not in (None, sink):
            continue
        own = event.to is not None and not isinstance(event, Mark)
        if own != owns:
            _close(steps, collected, labels, own=owns)
            owns = own
        if isinstance(event, Mark):
            if str(event.data.get("event")).encode() in labels:
                _close(steps, collected, labels)
                steps.append(event)
        elif (rows := collected.get(event.type.encode())) is not None:
            _collect(rows, entry_id, event)
    _close(steps, collected, labels, own=owns)
    return steps


def _collect(rows: _Collected, entry_id: bytes, event: Upsert | Delete | Truncate) -> None:
    rows.is_plain = False
    if isinstance(event, Truncate):
        rows.truncate = True
        rows.latest.clear()
        rows.behind.clear()
        return
    key = event.key
    if isinstance(event, Delete):
        change = Change(entry_id, key, None)
    else:
        change = Change(entry_id, key, event.state, event.partial, event.quoted, event.rev)
    if change.partial and key in rows.latest:
        rows.behind.setdefault(key, []).append(change)
    else:
        rows.latest[key] = change
        rows.behind.pop(key, None)


def _is_addressed(entry: Entry) -> bool:
    """Whether an entry is for one sink alone."""
    return b"to" in entry[1][::2]


def _close(
    steps: list[Step], collected: dict[bytes, _Collected], labels: Mapping[bytes, str], *, own: bool = False
) -> None:
    """Make a step of what has been collected, and begin anew."""
    segment: Segment = {}
    for label, rows in collected.items():
        if rows.truncate or rows.latest:
            segment[labels[label]] = TypeChanges(rows.truncate, _rounds(rows), own)
            collected[label] = _Collected()
    if segment:
        steps.append(segment)


def _rounds(rows: _Collected) -> list[Round]:
    if rows.is_plain and rows.latest:
        return [Round([], [Group(*_PLAIN, list(rows.latest.values()))])]
    rounds = [_round(rows.latest.values())] if rows.latest else []
    depth = max(map(len, rows.behind.values()), default=0)
    for number in range(depth):
        rounds.append(_round(changes[number] for changes in rows.behind.values() if len(changes) > number))
    return rounds


def _round(changes: Iterable[Change]) -> Round:
    deletes: list[Change] = []
    groups: dict[tuple[object, ...], list[Change]] = {}
    for change in changes:
        if change.state is None:
            deletes.append(change)
        else:
            fields = change[3:]
            if fields in groups:
                groups[fields].append(change)
            else:
                groups[fields] = [change]
    upserts = [Group(found[0].partial, found[0].quoted, found[0].rev, found) for found in groups.values()]
    return Round(deletes, upserts)
