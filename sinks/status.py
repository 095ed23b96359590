"""What a sink tells the world about itself, as JSON under the pipeline's status keys."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from transforms.errors import StatecastError
from transforms.position import LSN, Position

STATES = ("starting", "snapshotting", "streaming", "standby", "paused", "reconnecting", "stopped")


@dataclass(slots=True)
class SinkStatus:
    """State and progress of one sink. Times are seconds since 1970."""

    name: str
    state: str = "starting"
    since: float = field(default_factory=time.time)
    reason: str | None = None
    remedy: str | None = None
    applied_lsn: LSN | None = None
    """Everything the source committed before this is in all replicas."""
    published: LSN | None = None
    newest_seconds: float | None = None
    """When the last change that was applied was committed."""
    at_end: bool = False
    """Nothing is left to apply."""
    dead: int = 0
    rows: int = 0
    """Written since the process began."""
    streams: Mapping[str, Position] = field(default_factory=dict)
    events: Sequence[str] = ()
    """The labels of what it maps."""
    rebuilds: Sequence[Mapping[str, object]] = ()
    """What is filled to take a replica's place: event, table, state, rows, reason."""

    def enter(self, state: str, reason: str | None = None, remedy: str | None = None) -> bool:
        """Take a state, perhaps the present one; returns whether anything is new."""
        if (state, reason) == (self.state, self.reason):
            return False
        if state != self.state:
            self.state, self.since = state, time.time()
        self.reason, self.remedy = reason, remedy
        return True

    def fail(self, state: str, error: StatecastError) -> bool:
        """Take a state because of an error."""
        return self.enter(state, str(error), error.remedy)

    def to_json(self) -> dict[str, object]:
        """As `cdc status` reads it."""
        lag_bytes = None
        if self.applied_lsn is not None and self.published is not None:
            lag_bytes = max(0, self.published - self.applied_lsn)
        lag_seconds = None
        if self.at_end:
            lag_seconds = 0.0
        elif self.newest_seconds is not None:
            lag_seconds = max(0.0, time.time() - self.newest_seconds)
        return {
            "name": self.name,
            "state": self.state,
            "since": self.since,
            "reason": self.reason,
            "remedy": self.remedy,
            "applied_lsn": None if self.applied_lsn is None else str(self.applied_lsn),
            "published": None if self.published is None else str(self.published),
            "lag_bytes": lag_bytes,
            "lag_seconds": lag_seconds,
            "dead": self.dead,
            "rows": self.rows,
            "alive_at": time.time(),
            "streams": {stream: str(position) for stream, position in self.streams.items()},
            "events": list(self.events),
            "rebuilds": list(self.rebuilds),
        }
