"""Rows that must be read again by their key: found by query, and published like a chunk."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager

from cdc.rereads import Taken
from cdc.snapshot import sizing
from cdc.snapshot.chunks import Chunks
from cdc.snapshot.subject import Subject
from cdc.snapshot.waiting import Waiting
from cdc.source.chunk import ChunkRows
from cdc.translation import Translator
from transforms.row import EncodedRow

IDLE_SECONDS = 60.0
"""So long the connection is kept without work."""


class Rereader:
    """Publishes whole rows for changes that could not be published as they were."""

    def __init__(
        self,
        connected: Callable[[], AbstractContextManager[Chunks]],
        translator: Translator,
        subjects: Mapping[str, Subject],
        waiting: Waiting,
        budget_bytes: int,
    ) -> None:
        """`connected` makes a connection to read over; `budget_bytes`: how much at a time, as the source sends it."""
        self._connected = connected
        self._translator = translator
        self._subjects = subjects
        self._waiting = waiting
        self._budget_bytes = budget_bytes
        self._limits: dict[str, int] = {}
        """By event, how many rows are read at a time."""

    def work(self) -> None:
        """The body of a thread: read what waits as soon as it does, over a connection that is closed after a while.

        Ends when the session does, of which it is woken. Raises what the source raises.
        """
        queue, stopped = self._translator.rereads, self._waiting.stopped
        while not stopped.is_set():
            queue.work.wait()
            if stopped.is_set():
                return
            with self._connected() as chunks:
                while queue.work.wait(IDLE_SECONDS) and not stopped.is_set():
                    queue.work.clear()
                    while queue.events and not stopped.is_set():
                        self.read_again(chunks)

    def read_again(self, chunks: Chunks) -> None:
        """Read and publish some rows of each event that has some waiting."""
        for event in self._translator.rereads.events:
            self._read_some(chunks, self._subjects[event])

    def _read_some(self, chunks: Chunks, subject: Subject) -> None:
        event, translator = subject.event, self._translator
        limit = self._limits.get(event, sizing.FIRST_KEYS)
        taken: Taken | None = None

        def take() -> None:
            nonlocal taken
            taken = taken or translator.rereads.take(event, limit)

        while True:
            window = chunks.open(event, take)
            assert taken is not None
            began = time.monotonic()
            rows = chunks.read(subject, subject.query(keys=taken.keys), self._budget_bytes)
            seconds = time.monotonic() - began
            limit = sizing.next_keys(limit, rows.scanned, rows.size_bytes, seconds, self._budget_bytes)
            unseen = chunks.publish(subject, window, rows, b"reread", None, self._finish(event, taken, rows))
            if not unseen:
                break
            chunks.wait_until_seen(unseen, self._waiting)
        self._limits[event] = limit

    def _finish(self, event: str, taken: Taken, rows: ChunkRows[EncodedRow]) -> Callable[[frozenset[bytes]], None]:
        unread = frozenset() if rows.exhausted else taken.keys.difference(row[0] for row in rows.rows)
        return lambda incomplete: self._translator.rereads_done(event, taken, incomplete | unread)
