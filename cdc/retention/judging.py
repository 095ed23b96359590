"""What may be trimmed from a stream, and who holds it back: pure decisions.

A stream keeps, whatever else is true: its last entry, which proves where it ends; what the source may send again,
against which repeats are proved; and for everybody who reads it the entry at which he stands, where a sink begins
its next read. Of the rest, it keeps what is younger than `retain`, unless Redis is short of memory.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, NamedTuple

from cdc.retention.entry_trail import EntryTrail
from transforms.position import LSN, Position

PRESSURE_SHARE = 0.75
"""From this share of maxmemory on, entries that all have read are given up though they are young."""


class Memory(NamedTuple):
    """What Redis uses, and may use, in bytes."""

    used: int
    limit: int
    """0: there is no limit."""

    @property
    def is_short(self) -> bool:
        """Whether entries are given up early."""
        return bool(self.limit) and self.used > PRESSURE_SHARE * self.limit


class Holder(NamedTuple):
    """Somebody who reads a stream."""

    name: str
    position: Position
    """The first pending entry, else the last one delivered; of a sink, its checkpoint."""
    is_sink: bool
    """A sink of ours, which can ask for a snapshot; else a consumer group of somebody else."""
    has_group: bool = True
    """False: known by its status alone; its consumer group is gone."""
    is_passed: bool = False
    """A sink that was trimmed past: it snapshots again when it returns."""


@dataclass(frozen=True, slots=True)
class StreamSeen:
    """A stream at one moment. It has at least one entry."""

    key: str
    first: Position
    last: Position
    """Ids of entries that are there."""
    length: int
    added: int
    """How many entries were ever added."""
    size_bytes: int
    holders: tuple[Holder, ...]

    def unread(self, position: Position, known_behind: int) -> int:
        """How many entries lie behind a position; `known_behind`: a lower bound from elsewhere."""
        if position >= self.last:
            return 0
        if position <= self.first:
            return self.length - (position == self.first)
        return max(1, min(known_behind, self.length - 1))

    def bytes_of(self, entries: int) -> int:
        """About how much memory so many of its entries take."""
        return self.size_bytes * entries // self.length


class Backlog(NamedTuple):
    """What somebody has not read yet."""

    holder: Holder
    entries: int
    size_bytes: int


def backlogs_of(stream: StreamSeen, trail: EntryTrail) -> list[Backlog]:
    """What each of a stream's readers has not read yet."""
    found = []
    for holder in stream.holders:
        entries = stream.unread(holder.position, trail.behind(holder.position))
        found.append(Backlog(holder, entries, stream.bytes_of(entries)))
    return found


@dataclass(frozen=True, slots=True)
class Rules:
    """What the configuration says."""

    max_backlog_bytes: int | None
    laggard: Literal["block", "resync"]


class Judgement(NamedTuple):
    """What is to be done about one stream."""

    keep_from: Position
    """Every entry before this id may go."""
    floor: Position
    """Every entry before this id would go if nobody was waited for."""
    exempt: tuple[str, ...]
    """Sinks that are not waited for: beyond the limit, or trimmed past already."""
    blocking: tuple[Backlog, ...]
    """Who is beyond the limit and may not be trimmed past: the reader waits for them."""
    held_by: tuple[Backlog, ...]
    """Who keeps entries that would go without him, the one farthest behind first."""
    returned: tuple[str, ...]
    """Sinks that were trimmed past and have begun again."""


def judge(
    stream: StreamSeen,
    backlogs: Sequence[Backlog],
    rules: Rules,
    *,
    confirmed: LSN | None,
    young: Position,
    memory_is_short: bool,
) -> Judgement:
    """Decide about a stream.

    `backlogs`: of each of its holders. `confirmed`: up to where the source never sends again (None: it never sends
    anything of this stream again). `young`: the first entry that is younger than `retain`, or behind the last one.
    """
    limit = rules.max_backlog_bytes
    beyond = [backlog for backlog in backlogs if limit is not None and backlog.size_bytes > limit]
    returned = tuple(holder.name for holder in stream.holders if holder.is_passed and holder.position >= stream.first)
    exempt = {holder.name for holder in stream.holders if holder.is_passed and holder.name not in returned}
    if rules.laggard == "resync":
        exempt |= {holder.name for holder, _, _ in beyond if holder.is_sink and holder.has_group}
    floor = stream.last
    if confirmed is not None:
        floor = min(floor, Position(confirmed, 0))
    if not memory_is_short:
        floor = min(floor, young)
    waited_for = [backlog for backlog in backlogs if backlog.holder.name not in exempt]
    return Judgement(
        min([floor, *(holder.position for holder, _, _ in waited_for)]),
        floor,
        tuple(sorted(exempt)),
        tuple(backlog for backlog in beyond if backlog.holder.name not in exempt),
        tuple(
            sorted(
                (backlog for backlog in waited_for if backlog.entries and backlog.holder.position < floor),
                key=lambda backlog: backlog.holder.position,
            )
        ),
        returned,
    )
