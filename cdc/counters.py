"""What a reader has done since its process began: plain numbers, written once a batch and read at a scrape."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field

from cdc.growth import Growth
from cdc.snapshot.run import Run
from cdc.trail import Trail
from transforms.failures import Failures
from transforms.histogram import Histogram
from transforms.position import LSN


@dataclass(slots=True)
class Counters:
    """Kept over all sessions of a process. Each field has one thread that writes it; any thread may read."""

    batches: int = 0
    entries: Counter[str] = field(default_factory=Counter)
    """Stream -> entries appended."""
    repeats: Counter[str] = field(default_factory=Counter)
    """Stream -> entries that were in it already."""
    sent_bytes: int = 0
    publish_seconds: Histogram = field(default_factory=Histogram)
    """From the sending of a batch to its reply."""
    published: LSN | None = None
    confirmed: LSN | None = None
    confirm_sent_at: float | None = None
    """When the slot was last told a position; monotonic."""
    written: Trail = field(default_factory=Trail)
    """Where the source's log ended; monotonic seconds."""
    growth: Growth | None = None
    """How fast it grows."""
    sessions: int = 0
    runs: dict[str, Run] = field(default_factory=dict)
    """Event -> the newest snapshot run that this process worked on, as it stands."""
    events: dict[str, bool] = field(default_factory=dict)
    """Event -> whether it is stopped alone."""
    failures: Failures = field(default_factory=Failures)

    def batch_answered(self, seconds: float) -> None:
        """Redis has answered for a whole batch."""
        self.batches += 1
        self.publish_seconds.observe(seconds)
