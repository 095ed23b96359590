"""Somebody who looks, beside the publishing, whether Redis still has what was stored, and has it as safe as is asked.

A position may be confirmed to the source when a look that began late enough has found it stored. The look is one round
trip of a connection of its own, so that nothing which is published ever waits for a disk or a replica:

    HMGET meta epoch incarnation published       what this server has
    SET status:durable                           a real write, behind all that: WAIT and WAITAOF ask for no more than
                                                 what the same connection has written
    WAIT or WAITAOF                              where `transport.durability` asks for it

Because it reads what it vouches for from the server that answers, a server that has taken another's place behind the
same address vouches for nothing that it does not hold. And once a second it is looked who answers at all: when Redis
was started again or has failed over, the session ends, and the next one compares everything, also where no connection
has noticed.
"""

from __future__ import annotations

import logging
import threading
import time
from collections import deque
from collections.abc import Callable

from cdc.durability import Assurance
from cdc.errors import TransportError
from cdc.retention.wording import Hindrance
from cdc.transport import Attestation, Attestor, ServerIdentity
from transforms.failpoints import Failpoint, reached
from transforms.position import LSN
from transforms.pulse import Pulse

log = logging.getLogger(__name__)

LOOK_SECONDS = 0.2
"""The least time between two looks; the slot is not told more often either."""
IDLE_LOOK_SECONDS = 1.0
SILENT_SECONDS = 60.0


class RedisReplaced(TransportError):
    """Another server answers than at the beginning of the session, or an older state of it."""

    retryable = True
    remedy = (
        "Nothing: the reader compares what is there with what it published, and publishes again what is missing."
        " `cdc check` prints what Redis' persistence can lose."
    )


class Witness:
    """One thread runs it; `stored` is called from another, and `vouched_at` and `hindrance` are read from any."""

    def __init__(
        self, attestor: Attestor, assurance: Assurance, life: str, identity: ServerIdentity, pulse: Pulse
    ) -> None:
        """`life`: of the streams (`TransportState.life`). `identity`: of the server that they were found on."""
        self._attestor = attestor
        self._assurance = assurance
        self._life = life
        self._identity = identity
        self._pulse = pulse
        self._changed = threading.Condition()
        self._pending: deque[float] = deque()
        """When each position was stored that is not vouched for."""
        self._newest = LSN(0)
        self._ended = False
        self.vouched_at = float("-inf")
        """What was stored before this moment, less the delay that is asked for, is safe; monotonic seconds."""
        self.hindrance: Hindrance | None = None
        """Why nothing can be vouched for now."""

    def stored(self, end: LSN) -> float:
        """The publisher has stored this position; returns the moment as of which that counts, in monotonic seconds."""
        with self._changed:  # so that a look which begins later knows of it
            now = time.monotonic()
            self._newest = max(self._newest, end)
            self._pending.append(now)
            if len(self._pending) == 1:  # else it is known when to look, and a thread need not be woken for each batch
                self._changed.notify()
        return now

    def end(self) -> None:
        """Have `run` return."""
        with self._changed:
            self._ended = True
            self._changed.notify()

    def run(self, told: Callable[[], None]) -> None:
        """Look until ended; `told` is called behind each look that vouches for something new. Raises TransportError."""
        looked = float("-inf")
        while self._wait_until_due(looked):
            looked = time.monotonic()
            self._pulse.beat("witness", looked + SILENT_SECONDS)
            if self._look():
                reached(Failpoint.POSITION_VOUCHED)
                told()
        self._pulse.end("witness")

    def _wait_until_due(self, looked: float) -> bool:
        """Return when it is time for a look (True), or when ended."""
        with self._changed:
            while not self._ended:
                due = looked + IDLE_LOOK_SECONDS
                if self._pending:
                    due = min(due, max(looked + LOOK_SECONDS, self._pending[0] + self._assurance.delay_seconds))
                if (left := due - time.monotonic()) <= 0:
                    return True
                self._changed.wait(left)
        return False

    def _look(self) -> bool:
        """Whether it vouches for something that no look before vouched for."""
        with self._changed:
            began, newest = time.monotonic(), self._newest
            asks = bool(self._pending) and self._assurance.question is not None
        seen = self._attestor.attest(self._assurance.question if asks else None)
        self._expect_the_same(seen, newest)
        if asks and seen.copies < self._assurance.copies:
            self._hinder(seen.copies)
            return False
        if asks:
            self._unhinder()
        self.vouched_at = began
        with self._changed:
            before = len(self._pending)
            while self._pending and self._pending[0] + self._assurance.delay_seconds <= began:
                self._pending.popleft()
            return len(self._pending) < before

    def _expect_the_same(self, seen: Attestation, newest: LSN) -> None:
        if seen.identity != self._identity:
            raise RedisReplaced(f"Redis {seen.identity.change_since(self._identity)}")
        if seen.life != self._life:
            raise RedisReplaced("Redis holds other streams of this pipeline than before")
        if seen.published < newest:
            raise RedisReplaced(f"Redis went back: it says {seen.published} was published, and {newest} was")

    def _hinder(self, copies: int) -> None:
        hindrance = Hindrance(self._assurance.shortfall.format(copies), self._assurance.remedy)
        if self.hindrance is None:
            log.warning("nothing is confirmed: %s (%s)", *hindrance)
        self.hindrance = hindrance

    def _unhinder(self) -> None:
        if self.hindrance is not None:
            log.info("Redis has made safe what was published: it is confirmed")
        self.hindrance = None
