"""One session: from a connection to the source and one to Redis until either is lost or the reader stops.

Nothing is carried from one session to the next but what the slot and Redis hold, so recovery is the same as a start.
Threads: this one reads the log and encodes it; one publishes, a batch at a time; one looks whether what was published
is safe (`witness`); others read rows by query (`snapshot`).
Status updates go out from here on a timer, also while the publisher is slow.
"""

from __future__ import annotations

import logging
import queue
import select
import socket
import threading
import time
from collections import deque
from collections.abc import Callable
from functools import partial

from cdc import walsender
from cdc.batch import Batch
from cdc.counters import Counters
from cdc.gathering import Gathering
from cdc.progress import Progress
from cdc.publisher import Publisher
from cdc.replication import ReplicationConnection
from cdc.retention.blocking import Blocking
from cdc.snapshot.worker import SnapshotWorker
from cdc.translation import Translator
from cdc.walsender import KEEPALIVE, XLOG_DATA
from cdc.witness import Witness
from transforms.errors import StatecastError
from transforms.failpoints import Failpoint, reached
from transforms.position import LSN
from transforms.pulse import Pulse
from transforms.tuple_data import MalformedMessage

log = logging.getLogger(__name__)

FRAMES_PER_TURN = 512
BYTES_PER_TURN = 1024 * 1024
"""How many frames, or bytes of them, are handled before timers are looked at."""
WAIT_SECONDS = 0.5
CONFIRM_INTERVAL_SECONDS = 0.2
IDLE_STORE_INTERVAL_SECONDS = 1.0
"""How often an idle position is stored."""
SHORT_PAUSE_SECONDS = 0.001
"""How long the log may go unread that comes over a Unix socket, which takes some 278 small messages and no more."""
STORE_DELAY_SECONDS = 0.02
"""How long the position of what is appended waits for another batch to go along with: longer than batches wait."""
BATCHES_IN_FLIGHT = 2
"""One is being appended while the next is on its way."""
DRAIN_SECONDS = 4.0
"""How long a stop may take for the batch in hand."""
TURN_SECONDS = 60.0
"""How long a thread of a session may be silent: twice what Redis is given for an answer."""


class Session:
    """Moves transactions from the log to the streams until told to stop."""

    def __init__(
        self,
        replication: ReplicationConnection,
        publisher: Publisher,
        progress: Progress,
        witness: Witness,
        blocking: Blocking,
        every_second: Callable[[], None],
        counters: Counters,
        pulse: Pulse,
    ) -> None:
        """`every_second` is called by the publishing thread, also when there is nothing to publish."""
        self.progress = progress
        self._replication = replication
        self._publisher = publisher
        self._witness = witness
        self._blocking = blocking
        self._every_second = every_second
        self._counters = counters
        self._pulse = pulse
        self._batches: queue.Queue[Batch | None] = queue.Queue(maxsize=1)
        self._publishing = False
        self._ending = False
        """The publishing thread takes no more batches."""
        self._draining = False
        """What is left is published, whoever is behind."""
        self._posted: deque[Callable[[], None]] = deque()
        self._failures: deque[BaseException] = deque()
        self._wake_receiver, self._wake_sender = socket.socketpair()
        self._wake_receiver.setblocking(False)
        self._wake_sender.setblocking(False)
        self._confirmed = progress.confirmed
        self._confirmed_at = 0.0
        self._idle_stored_at = 0.0
        self._gathering = Gathering()
        self._goal: LSN | None = None
        self._stop = threading.Event()
        self._translator: Translator
        self._worker: SnapshotWorker

    # --- called from other threads -----------------------------------------------------------------------------------

    def post(self, act: Callable[[], None]) -> None:
        """Have the stream's thread call `act` soon."""
        self._posted.append(act)
        self.wake()

    def wake(self) -> None:
        """Have the stream's thread look around."""
        try:
            self._wake_sender.send(b"!")
        except BlockingIOError:
            return  # it is full of wake-ups already

    # --- the loop ----------------------------------------------------------------------------------------------------

    def run(
        self,
        translator: Translator,
        worker: SnapshotWorker,
        stop: threading.Event,
        until: Callable[[], LSN | None],
        is_settled: Callable[[], bool],
    ) -> None:
        """Stream until `stop` is set, or until what `until` says is confirmed and nothing of it is left to be done.

        Raises StatecastError.
        """
        self._translator, self._worker, self._stop = translator, worker, stop
        watching = partial(self._witness.run, self.wake)
        bodies = {"publisher": self._publish_batches, "witness": watching, **worker.threads}
        threads = [threading.Thread(target=self._guarded, args=(body,), name=name) for name, body in bodies.items()]
        for thread in threads:
            thread.start()
        try:
            while not stop.is_set():
                self._turn()
                self._goal = until()
                if self._goal is not None and self.progress.confirmed >= self._goal and is_settled():
                    break
            self._drain()
        finally:
            try:
                worker.stop()
            finally:
                self._stop_publisher()
                self._witness.end()
                for thread in threads:
                    worker.stop_until_ended(thread)
                self._pulse.end("publisher")
                self._pulse.end("witness")
                self._pulse.end("stream")
                self._wake_receiver.close()
                self._wake_sender.close()

    def _turn(self) -> None:
        while self._posted:
            self._posted.popleft()()
        if self._failures:
            raise self._failures[0]
        drained = self._read_frames()
        now = time.monotonic()
        self._pulse.beat("stream", now + TURN_SECONDS)
        gathers = self._gathering.remaining(self._translator.builder.count, now)
        if gathers <= 0 and self._worth_publishing(now) and not self._publishing and self._batches.empty():
            self._submit()
        self._confirm(now)
        if drained and gathers > 0:  # what arrives meanwhile is read in one go
            pause = min(gathers, SHORT_PAUSE_SECONDS) if self._replication.holds_little else gathers
            select.select([self._wake_receiver], [], [], pause)
        elif drained:
            wait = WAIT_SECONDS if self.progress.settled else CONFIRM_INTERVAL_SECONDS
            self._replication.wait(self._wake_receiver.fileno(), wait)
        self._drain_wake_ups()

    def _read_frames(self) -> bool:
        """Handle frames that are here; True when there are no more for now."""
        frames: list[bytes] = []
        size = 0
        try:
            for frame in self._replication.frames():
                frames.append(frame)
                size += len(frame)
                if len(frames) == FRAMES_PER_TURN or size >= BYTES_PER_TURN:
                    return False
        finally:  # also when the stream has ended behind them
            self._handle(frames)
        return True

    def _handle(self, frames: list[bytes]) -> None:
        feed, at = self._translator.feed_run, 0
        while at < len(frames):
            kind = frames[at][0]
            if kind == XLOG_DATA:
                at += feed(frames, at)
                continue
            if kind != KEEPALIVE:
                raise MalformedMessage(f"a frame of unknown kind {kind:#04x}")
            self._keepalive(frames[at])
            at += 1
        if frames:
            reached(Failpoint.FRAMES_DECODED)

    def _keepalive(self, frame: bytes) -> None:
        keepalive = walsender.decode_keepalive(frame)
        self._replication.received = max(self._replication.received, keepalive.wal_end)
        self._translator.idle_at(keepalive.wal_end)
        if keepalive.reply_requested:
            self._replication.send_status(self._confirmable())

    def _confirmable(self) -> LSN:
        """How far what is published is known to be safe."""
        return self.progress.confirmable(self._witness.vouched_at)

    def _worth_publishing(self, now: float) -> bool:
        builder = self._translator.builder
        if not builder.worth_taking:
            return False
        if builder.has_content or self._goal is not None:
            return True
        return now - self._idle_stored_at >= IDLE_STORE_INTERVAL_SECONDS

    def _confirm(self, now: float) -> None:
        confirmed = self._confirmable()
        self._counters.published = self.progress.published
        moved = confirmed > self._confirmed and now - self._confirmed_at >= CONFIRM_INTERVAL_SECONDS
        if moved or self._replication.status_due(now):
            self._replication.send_status(confirmed)
            if moved:
                reached(Failpoint.STATUS_SENT)
            self._confirmed, self._confirmed_at = confirmed, now
            self._counters.confirmed, self._counters.confirm_sent_at = confirmed, now

    # --- publishing --------------------------------------------------------------------------------------------------

    def submit_full(self) -> None:
        """The builder is full: hand its batch over, waiting for the publisher, with status updates going on."""
        self._submit()

    def _submit(self) -> None:
        batch = self._translator.builder.take()
        self._idle_stored_at = time.monotonic()
        self._gathering.submitted(batch.count, self._idle_stored_at)
        reached(Failpoint.BATCH_BUILT)
        while True:
            try:
                self._batches.put(batch, timeout=CONFIRM_INTERVAL_SECONDS)
                return
            except queue.Full:
                if self._failures:
                    raise self._failures[0] from None
                self._draining = self._draining or self._stop.is_set()
                now = time.monotonic()
                self._pulse.beat("stream", now + TURN_SECONDS)  # back-pressure: the publisher answers for itself
                self._confirm(now)

    def _publish_batches(self) -> None:
        """The publishing thread."""
        publisher, called = self._publisher, 0.0
        while True:
            self._pulse.beat("publisher", time.monotonic() + TURN_SECONDS)
            if (batch := self._next_batch()) is not None:
                self._publishing = True
                publisher.send(batch)
                reached(Failpoint.BATCH_SENT)
                continue
            if self._ending and publisher.idle:
                return
            self._advance_publisher()
            if time.monotonic() - called >= 1.0:
                self._every_second()
                called = time.monotonic()

    def _next_batch(self) -> Batch | None:
        """The batch to send now; None: wait for what was sent, store a position, or look around."""
        publisher = self._publisher
        if self._ending or publisher.in_flight >= BATCHES_IN_FLIGHT:
            return None
        if self._blocking.blocked and not self._draining:
            if publisher.idle:
                self._blocking.wait(CONFIRM_INTERVAL_SECONDS)
            return None
        try:
            if publisher.in_flight:
                batch = self._batches.get_nowait()
            else:  # a position that is to be stored may go with the next batch
                batch = self._batches.get(timeout=1.0 if publisher.idle else STORE_DELAY_SECONDS)
        except queue.Empty:
            return None
        self._ending = batch is None
        return batch

    def _advance_publisher(self) -> None:
        end = self._publisher.advance()
        self._publishing = self._publisher.in_flight > 0  # before the stream's thread is woken, which looks at it
        if end is not None:
            self.post(partial(self._stored, end, self._witness.stored(end)))
        else:
            self.wake()

    def _stored(self, end: LSN, at: float) -> None:
        self.progress.stored(end, at)
        reached(Failpoint.PROGRESS_STORED)

    # --- ends --------------------------------------------------------------------------------------------------------

    def _guarded(self, body: Callable[[], None]) -> None:
        """Run a thread's body; its failure ends the session."""
        try:
            body()
        except BaseException as error:
            if not isinstance(error, StatecastError):
                log.debug("thread %s failed", threading.current_thread().name, exc_info=True)
            self._failures.append(error)
            self.wake()

    def _drain(self) -> None:
        """Publish what is whole, confirm what is safe."""
        deadline = time.monotonic() + DRAIN_SECONDS
        self._draining = True
        if self._translator.builder.worth_taking:
            self._submit()
        published = self._translator.builder.taken_end
        while self.progress.published < published and time.monotonic() < deadline and not self._failures:
            while self._posted:
                self._posted.popleft()()
            self._replication.wait(self._wake_receiver.fileno(), CONFIRM_INTERVAL_SECONDS)
            self._drain_wake_ups()
        self._replication.send_status(self._confirmable())

    def _stop_publisher(self) -> None:
        self._draining = True
        while True:
            try:
                self._batches.put(None, timeout=CONFIRM_INTERVAL_SECONDS)
                return
            except queue.Full:
                if self._failures:
                    return

    def _drain_wake_ups(self) -> None:
        try:
            while self._wake_receiver.recv(4096):
                continue
        except BlockingIOError:
            return
