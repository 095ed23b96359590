"""What went wrong since a process began, by class of error: an error's text may say too much for a label."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field


@dataclass(slots=True)
class Failures:
    """One thread writes, any thread may read."""

    counts: Counter[str] = field(default_factory=Counter)
    """Class of error -> how often it ended a session or an attempt to open one."""
    last_at: dict[str, float] = field(default_factory=dict)
    """Class of error -> when it happened last, seconds since 1970."""

    def note(self, error: Exception, at: float) -> None:
        """Remember an error."""
        name = type(error).__name__
        self.counts[name] += 1
        self.last_at[name] = at
