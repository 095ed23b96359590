"""The snapshot work of one session.

One thread keeps the runs, and looks after what the stream's thread cannot ask the source for itself; one reads again
what must be; the others read chunks.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Collection, Mapping

from cdc.control import Control
from cdc.counters import Counters
from cdc.growth import Growth
from cdc.snapshot.chunk_threads import ChunkThreads
from cdc.snapshot.chunks import Chunks
from cdc.snapshot.marks import Marks, Stopped
from cdc.snapshot.rereading import Rereader
from cdc.snapshot.run import Run
from cdc.snapshot.runs import Runs
from cdc.snapshot.sizing import share_bytes
from cdc.snapshot.subject import Subject
from cdc.snapshot.waiting import Waiting
from cdc.source.connection import Source
from cdc.source.transactions import current_snapshot
from cdc.source.write_ahead_log import flush_position
from cdc.translation import Translator

log = logging.getLogger(__name__)

POLL_SECONDS = 0.2
"""How often requests are looked for."""
LOOK_INTERVAL_SECONDS = 1.0
"""How often it is looked where the log ends, and which transactions a snapshot sees."""
STOP_INTERVAL_SECONDS = 0.3
VERIFY_INTERVAL_SECONDS = 5.0
"""How often it is looked whether tables and publication are still those that are mapped."""


class SnapshotWorker:
    """Works through the runs of one session in `threads`."""

    def __init__(
        self,
        source: Source,
        open_source: Callable[[], Source],
        control: Control,
        translator: Translator,
        subjects: Mapping[str, Subject],
        prefix: str,
        post: Callable[[Callable[[], None]], None],
        verify: Callable[[Source], None],
        counters: Counters,
        stream_waits_for: Callable[[str], str | None],
        chunk_threads: int,
        stopped: Collection[str] = (),
    ) -> None:
        """`source` is for the thread that keeps the runs, `open_source` makes one for a thread that reads chunks.

        `post` has a function called by the stream's thread; `verify` is called every few seconds and raises what it
        finds wrong with the mapping; `stream_waits_for` tells whose reading a stream waits for before it takes more.
        `stopped`: events whose runs wait until they are mended.
        """
        self._source = source
        self._translator = translator
        self._post = post
        self._verify = verify
        self._wake = threading.Event()
        self._counters = counters
        self._waiting = Waiting()
        self._asked = 0
        """How often somebody said that there is something to do."""
        self._marks = Marks(prefix, translator.marks)
        self._looked_at, self._verified_at = 0.0, time.monotonic()

        def chunks(source: Source, meanwhile: Callable[[], None] = lambda: None) -> Chunks:
            return Chunks(source, self._marks, translator, meanwhile)

        self._threads = ChunkThreads(chunk_threads, open_source, chunks, self._waiting, self._wake.set)
        self._rereader = Rereader(
            self._threads.connected, translator, subjects, self._waiting, share_bytes(chunk_threads)
        )
        self._runs = Runs(
            source,
            control,
            translator,
            subjects,
            self._marks,
            self._threads,
            self._waiting,
            counters,
            stream_waits_for,
            self._look_at_source,
            stopped,
        )
        self.when_idle: Callable[[], None] = lambda: None
        self.idle = threading.Event()
        """Set while there is neither a run nor a request to work on."""

    @property
    def threads(self) -> dict[str, Callable[[], None]]:
        """Name -> body; each works until `stop`, and raises what the source or Redis raise."""
        readers = {f"chunks {number}": self._threads.work for number in range(1, self._threads.count + 1)}
        bodies = {"snapshot": self._keep, "rereads": self._rereader.work, **readers}
        return {name: self._until_stopped(body) for name, body in bodies.items()}

    @property
    def runs(self) -> list[Run]:
        """The runs in hand, as far as they are published."""
        return [in_hand.run for in_hand in self._threads.runs]

    @property
    def waiting_for(self) -> str | None:
        """What a run waits for, in words."""
        return self._waiting.reason or self._runs.waiting_for

    @property
    def paused_since(self) -> float | None:
        """Since when runs that are left are paused, in seconds since 1970."""
        return self._runs.paused_since

    def stop(self) -> None:
        """Have the threads return soon; may be called from any thread, after the stream's thread has ended its work."""
        self._waiting.stopped.set()
        self._marks.stop()
        self._wake.set()
        self._translator.rereads.work.set()
        self._threads.stop(also=self._source)

    def stop_until_ended(self, thread: threading.Thread) -> None:
        """Wait for a thread to end, stopping it again: a cancel that came between two statements has ended neither."""
        thread.join(STOP_INTERVAL_SECONDS)
        while thread.is_alive():
            self.stop()
            thread.join(STOP_INTERVAL_SECONDS)

    def wake(self) -> None:
        """There is something to do, or may be."""
        self._asked += 1
        self.idle.clear()
        self._wake.set()

    @staticmethod
    def _until_stopped(body: Callable[[], None]) -> Callable[[], None]:
        def run() -> None:
            try:
                body()
            except Stopped:
                log.debug("snapshot work stops with its session")

        return run

    def _keep(self) -> None:
        while not self._waiting.stopped.is_set():
            self._look_at_source()
            self._verify_now_and_then()
            asked = self._asked
            if self._runs.keep():
                self.idle.clear()
            elif asked == self._asked:  # else it may have come behind the look that this was
                self.idle.set()
                self.when_idle()
            self._wake.wait(POLL_SECONDS)
            self._wake.clear()

    def _look_at_source(self) -> None:
        """Note where the log ends, and have the stream's thread forget which transactions a snapshot sees."""
        if (now := time.monotonic()) - self._looked_at < LOOK_INTERVAL_SECONDS:
            return
        self._looked_at = now
        position, growth, at = flush_position(self._source), self._counters.growth, time.time()
        self._counters.written.note(now, position)
        self._counters.growth = Growth(at, position) if growth is None else growth.noted(at, position)
        if self._translator.deliveries.waits_for:
            snapshot = current_snapshot(self._source)
            self._post(lambda: self._translator.deliveries.seen(snapshot))

    def _verify_now_and_then(self) -> None:
        if time.monotonic() - self._verified_at >= VERIFY_INTERVAL_SECONDS:
            self._verify(self._source)
            self._verified_at = time.monotonic()
