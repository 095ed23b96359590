"""A snapshot of an event as it is stored: what it is for, and how far it is."""

from __future__ import annotations

import json
import secrets
import time
from collections.abc import Iterable, Set
from dataclasses import asdict, dataclass, fields, replace
from typing import Any

from transforms.condition.refusal import excerpt
from transforms.position import START, Position

MOST_VALUES = 1_000
"""Of one fan-out: it is stored anew with each chunk."""


@dataclass(frozen=True, slots=True)
class Run:
    """One snapshot of one event, or a fan-out: of a part of its rows, since related rows of theirs were changed."""

    id: str
    """Of a run that was asked for: the newest request that it serves and the event, `1718000000000-0:customer.v1`."""
    event: str
    """Its label, `customer.v1`."""
    state: str = "pending"
    """`pending`, `running` (its `run-begin` is published, unless it is `where` something), `done`, `refused`."""
    to: str | None = None
    """The one sink it is for."""
    first: bool = False
    """Whether the event was not published before: open writers are waited for."""
    where: str | None = None
    """A condition, as it was asked for: only the rows that meet it are published, and sinks delete nothing."""
    related: str | None = None
    """Of a fan-out: the embed whose rows were changed, `lines.product`; only rows that they belong to are published."""
    values: tuple[str, ...] = ()
    """Of a fan-out: what those rows have, or had, in the columns that relate them; JSON objects. Shown to nobody."""
    reason: str | None = None
    """Why it was refused; or why the reader made it by itself, where that may come as a surprise."""
    after: tuple[str, ...] | None = None
    """The key of the last row that is published, or was left out, as Postgres' text."""
    rows: int = 0
    scanned: int = 0
    """`rows`, and those that were left out."""
    share: float = 0.0
    created_at: float = 0.0
    started_at: float | None = None
    finished_at: float | None = None
    begun: str | None = None
    """The entry that is its `run-begin`; a sink believes none that comes later."""
    ended: str | None = None
    """The entry that is its `run-end`."""

    @classmethod
    def new(cls, event: str, *, first: bool = False, reason: str | None = None) -> Run:
        """A run that the reader starts by itself."""
        return cls(secrets.token_hex(6), event, first=first, reason=reason, created_at=time.time())

    @classmethod
    def requested(cls, request: str, event: str, to: str | None, where: str | None = None) -> Run:
        """A run that was asked for by the entry `request` of the stream of requests."""
        return cls(f"{request}:{event}", event, to=to, where=where, created_at=time.time())

    @classmethod
    def fan_out(cls, event: str, related: str, values: Iterable[str]) -> Run:
        """A run that the reader starts for related rows which belong to more rows than are read at once."""
        return replace(cls.new(event), related=related, values=tuple(sorted(values)))

    @property
    def is_fan_out(self) -> bool:
        """Whether it publishes what changes in related rows come to: a part of the stream of changes, only later."""
        return self.related is not None

    @property
    def is_whole(self) -> bool:
        """Whether it publishes every row of the event, so that sinks delete what they do not see of it."""
        return self.where is None and not self.is_fan_out

    @property
    def request(self) -> Position:
        """The newest request that it serves; START: the reader made it by itself."""
        request, asked_for, _ = self.id.partition(":")
        return Position.parse(request) if asked_for else START

    def serves(self, asked: Run) -> bool:
        """Whether what it publishes was read after somebody asked for the run `asked`, and is for the same."""
        where = excerpt(asked.where) if self.state == "refused" and asked.where is not None else asked.where
        same = (self.event, self.to, self.where, self.related) == (asked.event, asked.to, where, asked.related)
        return self.id == asked.id or (same and self.request >= asked.request)

    @property
    def title(self) -> str:
        """What it is a snapshot of, in words."""
        if self.related is not None:
            return f"{self.event} with changed {self.related}"
        return self.event if self.where is None else f"{self.event} where {excerpt(self.where)}"

    @property
    def is_over(self) -> bool:
        """Whether nothing is left to do for it."""
        return self.state in ("done", "refused")

    def refused(self, reason: str) -> Run:
        """The run, which is not made."""
        where = None if self.where is None else excerpt(self.where)
        return self.advanced(state="refused", where=where, reason=reason, finished_at=time.time())

    def replaced_by(self, run: Run) -> bool:
        """Whether it is over, and `run` of the same event makes it uninteresting."""
        asked_before = self.state == "done" or self.created_at < run.created_at
        return self.event == run.event and self.related == run.related and self.is_over and asked_before

    def to_json(self) -> str:
        """The run as it is stored."""
        return json.dumps(asdict(self))

    @classmethod
    def parse(cls, text: bytes | str) -> Run:
        """Read a stored run; what a later version has added to it is left aside. Raises ValueError, with no value."""
        try:
            raw = json.loads(text)
        except (ValueError, RecursionError):
            raise ValueError("it is not JSON") from None
        if not isinstance(raw, dict) or not all(isinstance(raw.get(name), str) for name in ("id", "event", "state")):
            raise ValueError("it is not an object with the strings id, event and state")
        known = {field.name: raw[field.name] for field in fields(cls) if field.name in raw}
        after = known.get("after")
        values = tuple(known.get("values", ()))
        return cls(**known | {"after": None if after is None else tuple(after), "values": values})

    def advanced(self, **changes: Any) -> Run:
        """The run with some fields changed."""
        return replace(self, **changes)


def coalesced(runs: Iterable[Run], begun: Set[str]) -> list[Run]:
    """The runs, but one for all that nobody has begun and that differ in nothing but who asked and when.

    Fan-outs of one embed become one for the values of all, up to so many.

    It is the newest by its id, in the oldest one's place. Those in `begun` have begun, though it may not be stored yet:
    what they read may be older than a request that came since. One for a sink alone stays: the sink knows it by its id.
    """
    kept: list[Run] = []
    waiting: dict[tuple[str, str | None, str | None], int] = {}
    for run in runs:
        same = run.event, run.where, run.related
        may_stand = run.state == "pending" and run.to is None and run.id not in begun
        if may_stand and same in waiting:
            older = kept[waiting[same]]
            if len(values := {*older.values, *run.values}) > MOST_VALUES:
                waiting[same] = len(kept)
                kept.append(run)
                continue
            newest = max(older, run, key=lambda one: one.request)
            kept[waiting[same]] = older.advanced(
                id=newest.id,
                first=older.first or run.first,
                reason=older.reason or run.reason,
                values=tuple(sorted(values)),
            )
            continue
        if may_stand:
            waiting[same] = len(kept)
        kept.append(run)
    return kept
