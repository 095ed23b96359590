"""How much of a stream is applied in one turn: what takes a fifth of a second, for the other streams wait meanwhile."""

from __future__ import annotations

from typing import Final

TURN_SECONDS: Final = 0.2
LEAST_ENTRIES: Final = 1_000
"""A turn's cost that does not depend on its size is small beside this many, and new rows still come by COPY."""
MOST_ENTRIES: Final = 5_000


class Pace:
    """What the last turns of each stream tell of the next one."""

    def __init__(self) -> None:
        self._fitting: dict[str, int] = {}

    def entries(self, stream: str, *, behind: bool) -> int:
        """How many entries to read. Of a stream not known to be behind few: it has its turn out of order."""
        return self._fitting.get(stream, MOST_ENTRIES) if behind else LEAST_ENTRIES

    def took(self, stream: str, entries: int, seconds: float) -> None:
        """So many entries were applied in so many seconds. Few tell nothing of how long many would take."""
        if entries >= LEAST_ENTRIES:
            fitting = int(entries * TURN_SECONDS / max(seconds, 0.001))
            self._fitting[stream] = min(max(fitting, LEAST_ENTRIES), MOST_ENTRIES)
