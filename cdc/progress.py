"""The confirm rule: how far the slot may forget.

    slot.confirmed_flush <= published <= what Redis has made durable

Only a Commit's end LSN or an idle keepalive's position enters here, and only after every stream has all its events
and `published` is stored; it leaves `delay_seconds` later, so that a tail which Redis loses is still in the slot and
is published again. Confirming is monotonic: a keepalive may go back after a reconnect, a confirm never does.
"""

from __future__ import annotations

from collections import deque

from transforms.position import LSN


class Progress:
    """Positions that are published, and from when on each may be confirmed. Times are seconds of one clock."""

    def __init__(self, confirmed: LSN, delay_seconds: float) -> None:
        self.confirmed = confirmed
        self.published = confirmed
        self._delay_seconds = delay_seconds
        self._ripening: deque[tuple[float, LSN]] = deque()

    def stored(self, end: LSN, now: float) -> None:
        """Everything before `end` is in its streams, and `published = end` is stored."""
        if end > self.published:
            self.published = end
            self._ripening.append((now + self._delay_seconds, end))

    def confirmable(self, now: float) -> LSN:
        """The position to confirm: never less than before."""
        while self._ripening and self._ripening[0][0] <= now:
            self.confirmed = max(self.confirmed, self._ripening.popleft()[1])
        return self.confirmed

    @property
    def settled(self) -> bool:
        """Whether all that is published has been confirmed."""
        return not self._ripening
