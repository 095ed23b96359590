"""When a small batch waits for company. Pure: the time is an argument.

A batch costs Redis, the sink and its target a round trip and a commit each, however little is in it. Where changes come
in faster than that, batches published at once get smaller and smaller, and all of the processor goes into their costs.
"""

from __future__ import annotations

SMALL_ENTRIES = 1000
"""A batch with fewer waits, if another has just gone."""
WAIT_SECONDS = 0.002
"""How long: less than a sink takes for a batch, so that it is hardly seen in what a single change takes."""
LOADED_ENTRIES = 50
"""With so many in one batch the source is under load, and what a sink takes is their number's, not the wait's."""
LOADED_WAIT_SECONDS = 0.008


class Gathering:
    """Says when what there is to publish may go."""

    def __init__(self) -> None:
        self._until = 0.0

    def submitted(self, entries: int, now: float) -> None:
        """A batch of `entries` went at `now`, in monotonic seconds."""
        self._until = now + (LOADED_WAIT_SECONDS if entries >= LOADED_ENTRIES else WAIT_SECONDS)

    def remaining(self, entries: int, now: float) -> float:
        """How many seconds a batch that has `entries` by `now` is still to wait; not above 0: none."""
        return 0.0 if entries >= SMALL_ENTRIES else self._until - now
