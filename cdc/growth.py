"""How fast the source's log grows, smoothed: a writer that comes in bursts tells little in any one second.

Exponentially weighted averages that count only the time that was watched, so that they hold from the first sample on.
What is known is stored with the reader's status: the next look, of whoever, goes on from there. So while no reader is
there to look, its last look makes it the mean since then.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any, Self

from transforms.position import LSN

OVER_SECONDS = 60.0
"""How far back it looks: what is older than this has the weight 1/e and less."""
ENOUGH_SECONDS = 10.0
"""Watched for less than this it is no better than a moment's rate."""


@dataclass(frozen=True, slots=True)
class Growth:
    """The log's end at one moment, and its growth up to then."""

    at: float
    """Seconds since 1970."""
    position: LSN
    bytes_per_second: float = 0.0
    watched_seconds: float = 0.0

    @property
    def is_known(self) -> bool:
        """Whether it was watched for long enough."""
        return self.watched_seconds >= ENOUGH_SECONDS

    def noted(self, at: float, position: LSN) -> Growth:
        """With another look. A position or a clock that went back belongs to another log or host: it begins anew."""
        seconds = at - self.at
        if seconds < 0 or position < self.position:
            return Growth(at, position)
        if seconds == 0:
            return self
        fresh = -math.expm1(-seconds / OVER_SECONDS)
        old = -math.expm1(-self.watched_seconds / OVER_SECONDS) * (1 - fresh)
        rate = (old * self.bytes_per_second + fresh * (position - self.position) / seconds) / (old + fresh)
        return Growth(at, position, rate, self.watched_seconds + seconds)

    def to_dict(self) -> dict[str, object]:
        """As it is stored."""
        return asdict(self) | {"position": str(self.position)}

    @classmethod
    def read(cls, stored: Mapping[str, Any] | None) -> Self | None:
        """What was stored; None: nothing, as by an earlier version."""
        if not stored:
            return None
        known = {name: float(stored[name]) for name in ("at", "bytes_per_second", "watched_seconds")}
        return cls(position=LSN.parse(stored["position"]), **known)
