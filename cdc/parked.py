"""Rows that a hook failed on: what is known of each, until the row is published again.

They are stored with the batch that holds their change, or the mark that they were found at, so none is lost in a crash.
Of each event only the first are kept one by one; those beyond are counted.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Final, Self

from transforms.position import Position
from transforms.row import Failed

log = logging.getLogger(__name__)

MOST_ROWS: Final = 1_000
"""So many rows of an event are kept one by one."""
GONE: Final = ""
"""What is stored for a row that is parked no more."""


@dataclass(frozen=True, slots=True)
class ParkedRow:
    """A row that is not published as it is now."""

    event: str
    key: str
    """JSON text, as entries carry it."""
    position: str
    """Of the change, as an entry's id."""
    error: str
    line: str
    at: float
    """When the change was committed, seconds since 1970."""

    @property
    def field(self) -> str:
        """Of the hash."""
        return f"{self.event} {self.key}"

    def to_json(self) -> str:
        """As it is stored."""
        return json.dumps(asdict(self))


@dataclass(frozen=True, slots=True)
class Beyond:
    """How many rows of an event there are that are not kept one by one, and where the last one was."""

    event: str
    rows: int
    position: str

    @property
    def field(self) -> str:
        """Of the hash."""
        return self.event

    def to_json(self) -> str:
        """As it is stored."""
        return json.dumps(asdict(self))


@dataclass(frozen=True, slots=True)
class Parked:
    """All that is parked, as it is stored."""

    rows: tuple[ParkedRow, ...] = ()
    beyond: tuple[Beyond, ...] = ()

    @classmethod
    def parse(cls, fields: Mapping[bytes, bytes]) -> Self:
        """Read the fields of the hash."""
        rows, beyond = list[ParkedRow](), list[Beyond]()
        for name, text in fields.items():
            raw: dict[str, Any] = json.loads(text)
            if b" " in name:
                rows.append(ParkedRow(**raw))
            else:
                beyond.append(Beyond(**raw))
        return cls(tuple(sorted(rows, key=lambda row: Position.parse(row.position))), tuple(beyond))

    def fields(self) -> Iterator[tuple[str, str]]:
        """The event and the hash's field of each."""
        yield from ((row.event, row.field) for row in self.rows)
        yield from ((one.event, one.field) for one in self.beyond)

    def of(self, events: Collection[str]) -> Self:
        """What is parked of these events."""
        rows = tuple(row for row in self.rows if row.event in events)
        return type(self)(rows, tuple(one for one in self.beyond if one.event in events))

    def counts(self) -> dict[str, int]:
        """Event -> how many of its rows are parked."""
        counts: dict[str, int] = {}
        for row in self.rows:
            counts[row.event] = counts.get(row.event, 0) + 1
        for one in self.beyond:
            counts[one.event] = counts.get(one.event, 0) + one.rows
        return counts


class Parking:
    """What is parked while a session runs. Only the stream's thread changes it."""

    def __init__(self, store: Callable[[str, str], None], parked: Parked | None = None) -> None:
        """`store(field, text)` has a field of the hash stored with the transaction in hand; GONE removes it."""
        parked = parked or Parked()
        self._store = store
        self._told: set[tuple[str, str, str]] = set()
        self._rows: dict[str, dict[str, ParkedRow]] = {}
        for row in parked.rows:
            self._rows.setdefault(row.event, {})[row.key] = row
        self._beyond = {one.event: one for one in parked.beyond}
        self.counts: Mapping[str, int] = parked.counts()
        """Event -> how many of its rows are parked; another mapping each time, for other threads look at it."""

    def park(self, event: str, failed: Failed, position: str, at: float) -> None:
        """A row is not published, since the event's hook failed on it."""
        if (failure := (event, failed.error, failed.line)) not in self._told:
            self._told.add(failure)
            log.error(
                "%s: its transform raised %s in %s (first at %s): `cdc status` lists the rows", *failure, position
            )
        rows = self._rows.setdefault(event, {})
        key = failed.key.decode()
        if key in rows or len(rows) < MOST_ROWS:
            rows[key] = ParkedRow(event, key, position, failed.error, failed.line, at)
            self._store(rows[key].field, rows[key].to_json())
        else:
            before = self._beyond.get(event)
            self._beyond[event] = Beyond(event, 1 + (before.rows if before else 0), position)
            self._store(event, self._beyond[event].to_json())
        self._count(event)

    def published(self, event: str, key: bytes) -> None:
        """A row is published, or is gone."""
        if (rows := self._rows.get(event)) and (row := rows.pop(key.decode(), None)) is not None:
            self._store(row.field, GONE)
            self._count(event)

    def emptied(self, event: str) -> None:
        """All rows of the event are gone."""
        self._forget(event, list(self._rows.get(event, ())), beyond=True)

    def run_ended(self, event: str, begun: str) -> None:
        """All rows of the event were read since the entry `begun`; what was parked before it is published, or gone."""
        begin = Position.parse(begun)
        stale = [key for key, row in self._rows.get(event, {}).items() if Position.parse(row.position) < begin]
        beyond = self._beyond.get(event)
        self._forget(event, stale, beyond=beyond is not None and Position.parse(beyond.position) < begin)

    def _forget(self, event: str, keys: Sequence[str], *, beyond: bool) -> None:
        for key in keys:
            self._store(self._rows[event].pop(key).field, GONE)
        if beyond and self._beyond.pop(event, None) is not None:
            self._store(event, GONE)
        self._count(event)

    def _count(self, event: str) -> None:
        beyond = self._beyond.get(event)
        count = len(self._rows.get(event, ())) + (beyond.rows if beyond else 0)
        if count != self.counts.get(event, 0):
            self.counts = {**self.counts, event: count}
