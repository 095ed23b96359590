"""Waiting for what others must do first: it ends with the session, and says in words what it waits for."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable

from cdc.snapshot.marks import Stopped

log = logging.getLogger(__name__)

PATIENCE_SECONDS = 2.0
"""After how long a wait is worth a line in the log."""
POLL_SECONDS = 0.05


class Waiting:
    """What the threads of one session wait for."""

    def __init__(self) -> None:
        self.stopped = threading.Event()
        self._reasons: dict[int, str] = {}

    @property
    def reason(self) -> str | None:
        """What the longest wait is for."""
        return next(iter(self._reasons.copy().values()), None)

    def check(self) -> None:
        """Raise Stopped when the session ends."""
        if self.stopped.is_set():
            raise Stopped

    def until(self, what: str, over: Callable[[], bool]) -> None:
        """Look again and again whether it is `over`. Raises Stopped, and what `over` raises."""
        started, told, thread = time.monotonic(), False, threading.get_ident()
        try:
            while not over():
                self._reasons[thread] = what
                if not told and time.monotonic() - started > PATIENCE_SECONDS:
                    log.warning("snapshot waits for %s", what)
                    told = True
                if self.stopped.wait(POLL_SECONDS):
                    raise Stopped
        finally:
            self._reasons.pop(thread, None)

    def for_turn(self, turn: threading.Condition, is_mine: Callable[[], bool]) -> None:
        """Wait until another thread notifies of `is_mine`. Raises Stopped."""
        with turn:
            while not turn.wait_for(is_mine, timeout=POLL_SECONDS):
                self.check()
