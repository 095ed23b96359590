"""Whom publishing waits for, as retention saw them last: changes beyond the limit, rows of a snapshot at half of it."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Mapping, Sequence

from cdc.retention import wording
from cdc.retention.judging import Backlog, Memory
from cdc.retention.wording import Hindrance

log = logging.getLogger(__name__)

SNAPSHOT_SHARE = 0.5
"""Of `max_backlog_bytes`, what a snapshot leaves to changes."""


class Blocking:
    """Written by the thread that looks at the streams, read from any; it costs nothing to ask."""

    def __init__(self, limit_bytes: int | None, sent_bytes: Callable[[], int]) -> None:
        """`limit_bytes`: `transport.max_backlog_bytes`. `sent_bytes`: how much was sent to Redis so far."""
        self._limit = limit_bytes
        self._sent_bytes = sent_bytes
        self._waits = threading.Condition()
        self._blocked: Hindrance | None = None
        self.memory = Memory(0, 0)
        """How full Redis is; written by who looks."""
        self._backlogs: Mapping[str, int] | None = None
        """Stream of the present epoch that has readers -> the largest backlog in it, in bytes. None: not looked."""
        self._sent_before = 0
        """What had been sent when backlogs were looked at."""

    # --- for those who publish ---------------------------------------------------------------------------------------

    @property
    def blocked(self) -> Hindrance | None:
        """Why nothing is to be published now."""
        return self._blocked

    def wait(self, timeout_seconds: float) -> None:
        """Return when publishing may go on, or after the timeout."""
        with self._waits:
            self._waits.wait_for(lambda: self._blocked is None, timeout_seconds)

    def snapshot_waits_for(self, stream: str) -> str | None:
        """Why no more rows of a snapshot should be published to a stream now; None: they may.

        All that was sent since the last look counts as unread.
        """
        limit = self._limit
        if self._backlogs is None:
            return None if limit is None else f"a first look at who reads stream {stream}"
        if (backlog := self._backlogs.get(stream)) is None:
            return None
        if limit is not None and backlog + self._sent_bytes() - self._sent_before > SNAPSHOT_SHARE * limit:
            return f"the readers of stream {stream} ({wording.of_limit(backlog, limit)})"
        if self.memory.is_short and backlog:
            return f"the readers of stream {stream} (Redis is short of memory: {wording.of_memory(self.memory)})"
        return None

    # --- for who looks -----------------------------------------------------------------------------------------------

    def seen(self, blocking: Sequence[tuple[str, Backlog]], backlogs: Mapping[str, int], sent_before: int) -> None:
        """What a look has found. `blocking`: stream keys, and who is beyond the limit in each.

        `backlogs`: stream -> the largest backlog that counts, in bytes; `sent_before`: what had been sent by then.
        """
        self._backlogs, self._sent_before = backlogs, sent_before
        blocked = None
        if blocking and self._limit is not None:
            blocked = wording.waiting(blocking, self._limit)
            if self._blocked is None:
                log.warning("publishing %s (%s)", blocked.reason, blocked.remedy)
        elif self._blocked is not None:
            log.info("publishing goes on")
        self._tell(blocked)

    def forget(self) -> None:
        """Nobody looks any more."""
        self._backlogs = None
        self._tell(None)

    def _tell(self, blocked: Hindrance | None) -> None:
        with self._waits:
            self._blocked = blocked
            self._waits.notify_all()
