"""What a reader says of itself: stored for `cdc status`, shown while it runs, and measured."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from cdc.growth import Growth
from cdc.retention.wording import Hindrance
from cdc.snapshot.run import Run

STATES = ("starting", "snapshotting", "streaming", "standby", "paused", "reconnecting", "stopped")


@dataclass(frozen=True, slots=True)
class Figures:
    """What the reader can say of itself; stored as JSON and shown by `cdc status`."""

    state: str
    since: float
    reason: str | None
    remedy: str | None
    alive_at: float
    published: str | None = None
    confirmed: str | None = None
    confirmed_in: str | None = None
    """The life of the streams (`TransportState.life`) of which `confirmed` tells."""
    appended: int = 0
    behind_since: float | None = None
    """Since when, at least, there has been log that is not published; None: there is none."""
    delivered_at: float | None = None
    """When the transaction that was delivered last was committed, seconds since 1970 by the source's clock."""
    runs: tuple[Run, ...] = ()
    """The snapshots in hand."""
    waiting_for: str | None = None
    untrimmed: Hindrance | None = None
    """Why streams are not trimmed."""
    unconfirmed: Hindrance | None = None
    """Why nothing of what is published is confirmed to the source."""
    growth: Growth | None = None
    """Of the source's log, as this process has watched it."""
    parked: Mapping[str, int] = field(default_factory=dict)
    """Event -> how many of its rows a hook has failed on."""

    def to_dict(self) -> dict[str, object]:
        """As it is stored."""
        names = ("state", "since", "reason", "remedy", "alive_at", "published", "confirmed", "confirmed_in", "appended")
        told = {name: getattr(self, name) for name in (*names, "behind_since", "delivered_at", "waiting_for")}
        return told | {
            "untrimmed": self.untrimmed and self.untrimmed._asdict(),
            "unconfirmed": self.unconfirmed and self.unconfirmed._asdict(),
            "growth": self.growth and self.growth.to_dict(),
        }
