"""The reader: sessions one after the other, for as long as what ends them may pass by itself."""

from __future__ import annotations

import logging
import os
import socket
import threading
import time
from collections.abc import Callable

from tenacity import RetryCallState, RetryError, Retrying, retry_if_exception, stop_when_event_set
from tenacity.wait import wait_exponential, wait_random

from cdc.config import ReaderConfig
from cdc.control import Control
from cdc.counters import Counters
from cdc.figures import Figures
from cdc.opening import Opened
from cdc.replication import SlotHeld
from cdc.retention.keeper import Retention
from cdc.source.publication import TablesLocked
from cdc.transport import connect
from transforms.errors import StatecastError
from transforms.keys import Keys
from transforms.pulse import Pulse

log = logging.getLogger(__name__)

STEADY_SECONDS = 10.0
"""A session that lasted for so long was well: the next failure starts a new row of attempts."""
STANDBY_SECONDS = 0.5
"""How often a standby looks whether the slot is free."""
PAUSE_SLACK_SECONDS = 30.0
"""How much later than meant a pause between sessions may end."""


class UnexpectedFailure(StatecastError):
    """A mistake of ours."""

    remedy = "Report it with the traceback from the reader's log, then start the reader again: it goes on where it was."


class Reader:
    """`cdc run`."""

    def __init__(
        self,
        config: ReaderConfig,
        *,
        once: bool = False,
        connect_timeout_seconds: float = 60.0,
        observe: Callable[[Figures], None] = lambda _: None,
    ) -> None:
        """`observe` is called about once a second while a session runs, from one of its threads."""
        self._config = config
        self._once = once
        self._connect_timeout_seconds = connect_timeout_seconds
        self._observe = observe
        self._began = time.monotonic()
        self._met = False
        self._state, self._since = "starting", time.time()
        self._reason: str | None = None
        self._remedy: str | None = None
        self._confirmed: tuple[str | None, str | None] = None, None
        """Position, and life of the streams, as they were last, also between sessions: streams are trimmed up to there,
        and a full Redis must be."""
        self._behind_since: float | None = None
        self.counters = Counters()
        self.pulse = Pulse()
        self.retention = Retention(
            config, lambda: self._state != "standby", lambda: self.counters.sent_bytes, self.pulse
        )
        self.latest = self._figures()
        """What the reader said of itself last; another value each time."""
        self.stop = threading.Event()
        """Set it to end the reader within seconds."""

    def run(self) -> None:
        """Stream until `stop` is set, or with `once` until all that is there now is published and confirmed.

        Raises StatecastError where a person must act, and where a server did not answer before first contact.
        """
        try:
            with self.retention.running():
                while not self._row_of_attempts():
                    log.info("opening the next session")
        except StatecastError as error:
            self._enter("stopped", error)
            raise
        except Exception as error:
            self._enter(
                "stopped", UnexpectedFailure(f"{type(error).__name__} in the reader: its log has the traceback")
            )
            raise
        if self._state == "standby":  # the status is that of the reader which holds the slot
            return
        self._enter("stopped")

    def _row_of_attempts(self) -> bool:
        """Sessions with growing pauses until one is done (True) or has lasted (False)."""
        attempts = Retrying(
            retry=retry_if_exception(self._may_pass),
            wait=_pause_before_next,
            stop=stop_when_event_set(self.stop),
            sleep=self._pause,
        )
        try:
            return attempts(self._attempt)
        except RetryError:
            return True  # told to stop while waiting

    def _pause(self, seconds: float) -> None:
        self.pulse.beat("pause", time.monotonic() + seconds + PAUSE_SLACK_SECONDS)
        self.stop.wait(seconds)
        self.pulse.end("pause")

    def _attempt(self) -> bool:
        opened = Opened(
            self._config,
            self._once,
            self._observe_session,
            self.counters,
            self.retention,
            self.pulse,
            self._held_up,
        )
        started = time.monotonic()
        try:
            opened.open()
            self._met = True
            self.counters.sessions += 1
            if self._state == "standby":
                opened.control.forget_standby(f"{socket.gethostname()}:{os.getpid()}")
            self._reason = self._remedy = None
            self._confirmed = str(opened.progress.confirmed), opened.life
            self._enter("streaming")
            opened.run(self.stop)
        except StatecastError as error:
            if self.stop.is_set() and error.retryable:
                return True
            if error.retryable and time.monotonic() - started > STEADY_SECONDS:
                self._interrupted(error)
                return False
            raise
        finally:
            opened.close()
        return True

    def _may_pass(self, error: BaseException) -> bool:
        if not isinstance(error, StatecastError) or not error.retryable:
            return False
        waits_for_a_slot = isinstance(error, SlotHeld)
        patient = self._met or waits_for_a_slot or isinstance(error, TablesLocked)
        patient = patient and not (self._once and waits_for_a_slot)
        if not patient and time.monotonic() - self._began > self._connect_timeout_seconds:
            return False
        self._interrupted(error)
        return True

    def _interrupted(self, error: StatecastError) -> None:
        standby = isinstance(error, SlotHeld)
        if not standby:
            self.counters.failures.note(error, time.time())
        if str(error) != self._reason:
            log.warning("%s: %s", "standing by" if standby else "interrupted", error)
        if standby:  # the status is that of the reader which holds the slot, and so is what stands in its way
            self.counters.events = {}
            if self._state != "standby":
                self._state, self._since = "standby", time.time()
            self._reason, self._remedy = str(error), error.remedy
            self.latest = self._figures()
            self._show_standby()
        else:
            self._enter("reconnecting" if self._met else "starting", error)

    # --- status ------------------------------------------------------------------------------------------------------

    def _enter(self, state: str, error: StatecastError | None = None) -> None:
        """Change the state and store it; the last error stays until a session is open again."""
        if state != self._state:
            self._state, self._since = state, time.time()
        if error is not None:
            self._reason, self._remedy = str(error), error.remedy
            self._behind_since = self._behind_since or time.time()
        self.latest = self._figures()
        try:
            with connect(self._config.transport.address) as client:
                self._store(Control(client, Keys(self._config.pipeline.name)), self.latest)
        except StatecastError as problem:
            log.debug("the status could not be stored: %s", problem)

    def _held_up(self, error: StatecastError) -> None:
        """An opening waits for others."""
        if str(error) != self._reason:
            log.warning("%s (%s)", error, error.remedy)
        self._enter("reconnecting" if self._met else "starting", error)

    def _show_standby(self) -> None:
        host, pid = socket.gethostname(), os.getpid()
        status = {"host": host, "pid": pid, "since": self._since, "alive_at": time.time(), "reason": self._reason}
        try:
            with connect(self._config.transport.address) as client:
                Control(client, Keys(self._config.pipeline.name)).write_standby(f"{host}:{pid}", status)
        except StatecastError as problem:
            log.debug("that this reader stands by could not be stored: %s", problem)

    def _figures(self) -> Figures:
        confirmed, life = self._confirmed
        return Figures(
            self._state,
            self._since,
            self._reason,
            self._remedy,
            time.time(),
            confirmed=confirmed,
            confirmed_in=life,
            behind_since=self._behind_since,
            growth=self.counters.growth,
        )

    def _observe_session(self, opened: Opened) -> None:
        runs = tuple(opened.worker.runs)
        state = "snapshotting" if any(not run.is_fan_out for run in runs) else "streaming"
        reason, remedy = self._reason, self._remedy
        if (blocked := self.retention.blocking.blocked) is not None:
            state, reason, remedy = "paused", blocked.reason, blocked.remedy
        elif opened.worker.paused_since is not None:
            state, reason, remedy = "paused", "snapshots wait, changes flow on", "Run `cdc snapshot --resume`."
        if state != self._state:
            self._state, self._since = state, opened.worker.paused_since or time.time()
        self._confirmed = str(opened.progress.confirmed), opened.life
        published, now = max(opened.progress.published, opened.published), time.time()
        delivered_at = int(opened.translator.hand.ts) / 1e6 or None
        newest_age = None if delivered_at is None else now - delivered_at
        lag_seconds = self.counters.written.lag_seconds(published, time.monotonic(), newest_age)
        self._behind_since = now - lag_seconds if lag_seconds else None
        figures = Figures(
            state,
            self._since,
            reason,
            remedy,
            now,
            str(published),
            *self._confirmed,
            opened.publisher.appended,
            self._behind_since,
            delivered_at,
            runs,
            opened.worker.waiting_for,
            self.retention.failure,
            opened.witness.hindrance,
            self.counters.growth,
            opened.translator.parking.counts,
        )
        self.latest = figures
        self._store(opened.control, figures)
        self._observe(figures)

    @staticmethod
    def _store(control: Control, figures: Figures) -> None:
        control.write_status(figures.to_dict())


LONGEST_PAUSE_SECONDS = 5.0
"""A server that is back is found within so long, after however long an outage."""
_GROWING = wait_exponential(multiplier=0.2, max=LONGEST_PAUSE_SECONDS) + wait_random(0, 0.3)


def _pause_before_next(state: RetryCallState) -> float:
    error = state.outcome.exception() if state.outcome else None
    return STANDBY_SECONDS if isinstance(error, SlotHeld) else _GROWING(state)
