"""Threads that read chunks: each of its own table as long as there are enough, else together."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager

from cdc.errors import SourceError
from cdc.snapshot.chunks import Chunks
from cdc.snapshot.waiting import Waiting
from cdc.snapshot.work_in_hand import WorkInHand
from cdc.source.connection import Source


class ChunkThreads:
    """The runs in hand, and the threads that work on them, each with a connection of its own while there is work."""

    def __init__(
        self,
        count: int,
        open_source: Callable[[], Source],
        chunks: Callable[[Source], Chunks],
        waiting: Waiting,
        on_complete: Callable[[], None],
    ) -> None:
        """`on_complete` is called when a run has no rows left."""
        self.count = count
        self._open_source = open_source
        self._chunks = chunks
        self._waiting = waiting
        self._on_complete = on_complete
        self.paused = False
        self._runs: list[WorkInHand] = []
        self._sources: set[Source] = set()
        self._turn = 0
        """How often a run was given a thread."""
        self._changed = threading.Condition()
        """Guards runs and sources; notified when there may be work, or none any more."""

    @property
    def runs(self) -> list[WorkInHand]:
        """The runs in hand, the oldest first."""
        with self._changed:
            return list(self._runs)

    def pause(self, paused: bool) -> None:
        """Hand out no work, or go on; chunks in hand are finished."""
        with self._changed:
            self.paused = paused
            self._changed.notify_all()

    def add(self, run: WorkInHand) -> None:
        """Have a run worked on."""
        with self._changed:
            self._runs.append(run)
            self._changed.notify_all()

    def remove(self, run: WorkInHand) -> None:
        """A run has ended."""
        with self._changed:
            self._runs.remove(run)

    def work(self) -> None:
        """The body of each thread, until `stop`. Raises what the source raises."""
        while (run := self._next(wait=True)) is not None:
            with self.connected() as chunks:
                while run is not None:
                    run.work(chunks)
                    self._leave(run)
                    run = self._next(wait=False)

    @contextmanager
    def connected(self) -> Iterator[Chunks]:
        """Chunks over a connection of their own, which `stop` cuts short."""
        with closing(self._open_source()) as source:
            self._hold(source)
            try:
                yield self._chunks(source)
            finally:
                self._release(source)

    def stop(self, also: Source) -> None:
        """Have the threads return or raise soon, whatever their connections do, and who uses this one."""
        with self._changed:
            self._changed.notify_all()
            sources = [also, *self._sources]
        for source in sources:
            try:
                source.cancel()
            except SourceError:  # it cannot be reached, so that no answer would come either
                with self._changed:
                    if source is also or source in self._sources:
                        source.abandon()

    def _next(self, *, wait: bool) -> WorkInHand | None:
        """The run that has the fewest threads of those that want one, and was given one least lately.

        None: there is none, or the session ends.
        """
        with self._changed:
            while not self._waiting.stopped.is_set():
                wanting = [run for run in self._runs if run.wants_threads and (not self.paused or run.run.is_fan_out)]
                if wanting:
                    run = min(wanting, key=lambda run: (run.threads, run.served))
                    run.threads += 1
                    run.served = self._turn = self._turn + 1
                    return run
                if not wait:
                    return None
                self._changed.wait()
        return None

    def _leave(self, run: WorkInHand) -> None:
        with self._changed:
            run.threads -= 1
            self._changed.notify_all()  # it may want more threads now
        if run.is_complete:
            self._on_complete()

    def _hold(self, source: Source) -> None:
        with self._changed:
            self._sources.add(source)
        self._waiting.check()  # a stop that came meanwhile has not seen this one

    def _release(self, source: Source) -> None:
        with self._changed:
            self._sources.remove(source)
