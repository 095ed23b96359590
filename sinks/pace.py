"""When a sink looks whether it may begin, and how much of a stream it applies in one turn.

A turn is what takes a fifth of a second, for the other streams wait meanwhile.
"""

from __future__ import annotations

from typing import Final

TURN_SECONDS: Final = 0.2
LEAST_ENTRIES: Final = 1_000
"""A turn's cost that does not depend on its size is small beside this many, and new rows still come by COPY."""
FIRST_ENTRIES: Final = 5_000
"""A first turn, before anything is known of the target."""
MOST_ENTRIES: Final = 10_000
"""Of rows that change again and again, only the last state is written: large turns spare the target most of them."""
SOONEST_LOOK_SECONDS: Final = 0.05
LATEST_LOOK_SECONDS: Final = 0.5


def pause_before_look(waited_seconds: float) -> float:
    """How long to wait before the next look: little at first, for a reader may just be starting too."""
    return min(max(waited_seconds / 4, SOONEST_LOOK_SECONDS), LATEST_LOOK_SECONDS)


class Pace:
    """What the last turns of each stream tell of the next one."""

    def __init__(self) -> None:
        self._fitting: dict[str, int] = {}

    def entries(self, stream: str, *, before_others: bool) -> int:
        """How many entries to read; few of a stream that has its turn before others, which are behind."""
        return LEAST_ENTRIES if before_others else self._fitting.get(stream, FIRST_ENTRIES)

    def took(self, stream: str, entries: int, seconds: float) -> None:
        """So many entries were applied in so many seconds. Few tell nothing of how long many would take."""
        if entries >= LEAST_ENTRIES:
            fitting = int(entries * TURN_SECONDS / max(seconds, 0.001))
            self._fitting[stream] = min(max(fitting, LEAST_ENTRIES), MOST_ENTRIES)
