"""What the demo shows of the pipeline at one moment."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from cdc.snapshot.run import Run
from transforms.position import LSN


class Entry(NamedTuple):
    """A stream entry as it lies in Redis."""

    stream: str
    id: str
    fields: Mapping[str, str]


@dataclass(frozen=True, slots=True)
class StreamFigures:
    """One stream."""

    name: str
    entries: int
    """Ever appended."""
    rate: float
    """Appended per second of late."""
    run: Run | None
    """The snapshot of its event."""


@dataclass(frozen=True, slots=True)
class SinkFigures:
    """One sink and its replica."""

    name: str
    state: str
    applied: LSN | None
    """Everything before this is in the replica."""
    behind_bytes: int | None
    """Of the source's log."""
    latency_seconds: float | None
    latency_history: Sequence[float]


@dataclass(frozen=True, slots=True)
class Figures:
    """Everything."""

    phase: str
    trouble: str | None
    """What the reader or a sink says of itself when it neither works nor is about to."""
    changes: int
    """Rows changed at the source."""
    change_rate: float
    change_history: Sequence[float]
    published: LSN | None
    behind_bytes: int | None
    streams: Sequence[StreamFigures]
    sinks: Sequence[SinkFigures]
    newest: Entry | None

    @property
    def entries(self) -> int:
        """In all streams."""
        return sum(stream.entries for stream in self.streams)

    @property
    def entry_rate(self) -> float:
        """Of all streams."""
        return sum(stream.rate for stream in self.streams)

    @property
    def snapshot_share(self) -> float:
        """How much of the initial snapshot is published, 0 to 1."""
        shares = [stream.run.share if stream.run else 0.0 for stream in self.streams]
        return sum(shares) / len(shares)

    @property
    def snapshot_complete(self) -> bool:
        """Whether all of the initial snapshot is published."""
        return all(stream.run is not None and stream.run.state == "done" for stream in self.streams)
