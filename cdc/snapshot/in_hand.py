"""A run that is worked on, by one thread or several: chunks are read in the order of the key, and published in it."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from dataclasses import replace

from cdc.snapshot import sizing
from cdc.snapshot.chunks import Chunks
from cdc.snapshot.run import Run
from cdc.snapshot.subject import Subject
from cdc.snapshot.visibility import Window
from cdc.snapshot.waiting import Waiting
from cdc.snapshot.work_in_hand import MOST_SHARE, WorkInHand
from cdc.source.chunk import ChunkQuery, ChunkRows
from cdc.translation import Translator
from transforms.position import LSN
from transforms.row import Absent, EncodedRow


class RunInHand(WorkInHand):
    """What the threads share that work on one run; each calls `work` for a chunk."""

    def __init__(
        self,
        run: Run,
        subject: Subject,
        translator: Translator,
        waiting: Waiting,
        held_by: Callable[[], str | None],
        chunk_bytes: int,
    ) -> None:
        """`run` has begun."""
        super().__init__(run, subject, translator, waiting, held_by, chunk_bytes)
        self._publishable = sizing.MOST_ROWS
        """How many rows of this table are published in time."""
        self._turn = threading.Lock()
        """Held while a chunk is read, for the next one begins behind its last key."""
        self._published_to = LSN(0)
        """What was delivered when the last chunk was published."""
        self._after = run.after
        self._exhausted = False
        self._read = 0
        self._published = 0
        self._order = threading.Condition()

    @property
    def wants_threads(self) -> bool:
        """Always for the first one, and for more where there is more than a chunk."""
        return not self._exhausted and (self.threads == 0 or self._read > 0) and self.held_by() is None

    @property
    def is_complete(self) -> bool:
        return self._exhausted and self._published == self._read

    @property
    def may_end(self) -> bool:
        return self.is_complete and self._translator.rereads.are_behind(self.run.event, self._published_to)

    def work(self, chunks: Chunks) -> None:
        event = self.subject.event
        window = chunks.open(event)
        if (read := self._read_next(chunks)) is None:
            chunks.give_up(event, window)
            return
        number, after, rows = read
        self._waiting.for_turn(self._order, lambda: self._published == number)
        self._publish(chunks, window, rows, after)
        with self._order:
            self._published += 1
            self._order.notify_all()

    def _read_next(self, chunks: Chunks) -> tuple[int, tuple[str, ...] | None, ChunkRows[EncodedRow]] | None:
        """The chunk's number, the key it begins behind, its rows; None: there is none left."""
        with self._turn:
            self._waiting.check()
            if self._exhausted:
                return None
            number, after, began = self._read, self._after, time.monotonic()
            limit = min(self._limit, self._publishable)
            rows = self._read_chunk(chunks, self.subject.query(after=after, limit=limit))
            seconds = time.monotonic() - began
            self._limit = sizing.next_rows(limit, rows.scanned, rows.size_bytes, seconds, self._chunk_bytes)
            self._after = rows.last_key or after
            self._read += 1
            self._exhausted = rows.exhausted
            return number, after, rows

    def _read_chunk(self, chunks: Chunks, query: ChunkQuery) -> ChunkRows[EncodedRow]:
        """Read rows, those of the event: a replica loses others at the end of the run, since they are not seen."""
        rows = chunks.read(self.subject, query, self._chunk_bytes)
        return replace(rows, rows=[row for row in rows.rows if not isinstance(row, Absent)])

    def _publish(
        self, chunks: Chunks, window: Window, rows: ChunkRows[EncodedRow], after: tuple[str, ...] | None
    ) -> None:
        """Publish a chunk; one that is read again may by then have more rows than fit at once."""
        event, until = self.subject.event, rows.last_key
        while True:
            unseen = chunks.publish(self.subject, window, rows, b"snapshot", self.run.to, self._finish(rows))
            if rows.scanned and not unseen:
                self._publishable = sizing.publishable_rows(rows.scanned, chunks.publishing_seconds)
            if unseen:  # also where nothing was found: a row that was missed would be swept away by sinks that have it
                chunks.wait_until_seen(unseen, self._waiting)
            elif rows.exhausted or rows.last_key == until:
                return
            else:
                after = rows.last_key
            window = chunks.open(event)
            rows = self._read_chunk(chunks, self.subject.query(after=after, until=until))

    def _finish(self, rows: ChunkRows[EncodedRow]) -> Callable[[frozenset[bytes]], None]:
        def finish(incomplete: frozenset[bytes]) -> None:
            """The stream's thread has published the rows."""
            event, done, scanned = self.subject.event, self.run.rows + len(rows.rows), self.run.scanned + rows.scanned
            self._published_to = self._translator.latest_end
            share = min(MOST_SHARE, scanned / max(self.subject.estimated_rows, 1))
            after = None if self.subject.key_is_masked else rows.last_key or self.run.after
            self.run = self.run.advanced(after=after, rows=done, scanned=scanned, share=share)
            if incomplete:
                self._translator.read_again(event, set(incomplete))
            self._translator.note(event, self.run.id, self.run.to_json())

        return finish
