"""When a small batch waits for company. Pure: the time is an argument.

A batch costs Redis, the sink and its target a round trip and a commit each, however little is in it. Where changes come
in faster than that, batches published at once get smaller and smaller, and all of the processor goes into their costs.
"""

from __future__ import annotations

SMALL_ENTRIES = 1000
"""A batch with fewer waits, if another has just gone."""
WAIT_SECONDS = 0.002
"""How long: less than a sink takes for a batch, so that it is hardly seen in what a single change takes."""
LOADED_WAIT_SECONDS = 0.016
"""How long under load, where what a change takes is mostly the changes before it."""
LOADED_RATE = 15_000
"""From how many entries a second on that is."""


class Gathering:
    """Says when what there is to publish may go."""

    def __init__(self) -> None:
        self._submitted_at = float("-inf")
        self._until = float("-inf")

    def submitted(self, entries: int, now: float) -> None:
        """A batch of `entries`, all that came since the one before, went at `now`, in monotonic seconds."""
        is_loaded = entries > LOADED_RATE * (now - self._submitted_at)
        self._submitted_at = now
        self._until = now + (LOADED_WAIT_SECONDS if is_loaded else WAIT_SECONDS)

    def remaining(self, entries: int, now: float) -> float:
        """How many seconds a batch that has `entries` by `now` is still to wait; not above 0: none."""
        return 0.0 if entries >= SMALL_ENTRIES else self._until - now
