"""Signs of life of a command's loops: each says by when it will be heard of again.

That tells a loop that waits as it should from one that hangs, which a thread that merely answers cannot.
"""

from __future__ import annotations


class Pulse:
    """When each loop is expected at the latest, as seconds of one monotonic clock. Threads may share it."""

    def __init__(self) -> None:
        self._due: dict[str, float] = {}

    def beat(self, loop: str, due_at: float) -> None:
        """A loop is at work and will beat again before `due_at`; infinity: what it waits for has no bound."""
        self._due[loop] = due_at

    def end(self, loop: str) -> None:
        """A loop has ended as it should."""
        self._due.pop(loop, None)

    def overdue(self, now: float) -> dict[str, float]:
        """The loops that broke their word, and for how many seconds."""
        return {loop: now - due_at for loop, due_at in self._due.copy().items() if now > due_at}
