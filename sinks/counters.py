"""What a sink has done since its process began: plain numbers, written once a batch and read at a scrape."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field

from sinks.compaction import Step
from sinks.feed import Batch
from transforms.event import Mark
from transforms.failures import Failures
from transforms.histogram import Histogram
from transforms.position import LSN

FRESH_SECONDS = 5.0
"""For how long it holds that nothing was left to apply: an idle worker looks each second."""


NOWHERE = LSN(0)


@dataclass(slots=True)
class StreamProgress:
    """One stream, as its sink has applied it. Times are seconds since 1970."""

    published: LSN = NOWHERE
    applied: LSN = NOWHERE
    """Everything in the stream before this is in the replicas."""
    holds_until: float | None = None
    """Of what the source had committed by then, nothing is missing."""
    at_end: bool = False
    """Nothing was left to apply when the stream was read last."""

    @property
    def lag_bytes(self) -> int:
        """How much published log is not applied yet."""
        return max(0, self.published - self.applied)

    def lag_seconds(self, now: float) -> float | None:
        """For how long the replicas may have been behind; None: nothing has been applied and the end not been seen."""
        if self.holds_until is None:
            return None
        behind = max(0.0, now - self.holds_until)
        return 0.0 if self.at_end and behind < FRESH_SECONDS else behind


@dataclass(slots=True)
class Counters:
    """Kept over all sessions of a process. The worker's thread writes, any thread may read."""

    rows: Counter[tuple[str, str]] = field(default_factory=Counter)
    """(event, `upsert` or `delete`) -> rows written, after changes of the same key were merged."""
    batches: int = 0
    parked: int = 0
    apply_seconds: Histogram = field(default_factory=Histogram)
    """From the reading of a batch to its commit."""
    delay_seconds: Histogram = field(default_factory=Histogram)
    """From the commit at the source (of a batch's last transaction) to the commit of the replica, by two clocks."""
    streams: dict[str, StreamProgress] = field(default_factory=dict)
    sessions: int = 0
    failures: Failures = field(default_factory=Failures)

    def read(self, batch: Batch, now: float) -> None:
        """A batch is in hand; without an `end` there is nothing in it to apply."""
        stream = self.streams.setdefault(batch.stream, StreamProgress())
        stream.published = batch.published
        stream.at_end = batch.end is None and batch.at_end
        if stream.at_end:
            stream.holds_until = now

    def applied(self, batch: Batch, parked: int, monotonic_now: float, now: float) -> None:
        """A batch and its checkpoint are committed."""
        self.batches += 1
        self.parked += parked
        for event, kind, count in _row_counts(batch.steps):
            self.rows[event, kind] += count
        self.apply_seconds.observe(monotonic_now - batch.read_at)
        stream = self.streams[batch.stream]
        if batch.committed_at is not None:
            self.delay_seconds.observe(now - batch.committed_at)
            stream.holds_until = max(stream.holds_until or 0.0, batch.committed_at)

    def holds(self, stream: str, position: LSN) -> None:
        """The replicas hold all of a stream before a position."""
        self.streams[stream].applied = position


def _row_counts(steps: Iterable[Step]) -> Iterable[tuple[str, str, int]]:
    for step in steps:
        if isinstance(step, Mark):
            continue
        for event, changes in step.items():
            for round_ in changes.rounds:
                yield event, "delete", len(round_.deletes)
                yield event, "upsert", sum(len(group.changes) for group in round_.upserts)
