"""A fan-out that is worked on: rows whose related rows were changed, more of them than are read at once."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable
from itertools import islice
from typing import Final

from cdc.related.affected import Affected
from cdc.snapshot import sizing
from cdc.snapshot.chunks import Chunks
from cdc.snapshot.run import Run
from cdc.snapshot.subject import Subject
from cdc.snapshot.waiting import Waiting
from cdc.snapshot.work_in_hand import MOST_SHARE, WorkInHand
from cdc.translation import Translator

FOUND_AT_ONCE: Final = 20_000
"""Keys: finding them again costs as much as there are rows, however far it is behind the first ones."""


class FanOutInHand(WorkInHand):
    """What one thread at a time works on; each call of `work` is for a chunk."""

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
        self._affected = Affected(subject, run.related or "", run.values)
        self._after = run.after
        """The key of the last row that is published, also where that may be stored nowhere."""
        self._keys: deque[tuple[bytes, tuple[str, ...]]] = deque()
        """Found and not published: each as the event's key, and as Postgres' text."""
        self._found_all = False
        self._estimated: int | None = None

    @property
    def wants_threads(self) -> bool:
        """For one: chunks come one after the other anyway."""
        return self.threads == 0 and not self.is_complete and self.held_by() is None

    @property
    def is_complete(self) -> bool:
        return self._found_all and not self._keys

    @property
    def may_end(self) -> bool:
        """Its last note waits for rows that were to be read again (`Translator.note`)."""
        return self.is_complete

    def work(self, chunks: Chunks) -> None:
        if self._estimated is None:
            self._affected.leave_unfitting(chunks.source)
            self._estimated = self.run.rows + self._affected.count(chunks.source)
        if not self._keys and not self._found_all:
            found = self._affected.behind(chunks.source, self._after, FOUND_AT_ONCE)
            self._keys.extend(found)  # first: with neither keys nor more to be found it would pass for complete
            self._found_all = len(found) < FOUND_AT_ONCE
        if self._keys:
            self._publish_next(chunks)

    def _publish_next(self, chunks: Chunks) -> None:
        chosen = list(islice(self._keys, self._limit))
        keys = frozenset(key for key, _ in chosen)
        window = chunks.open(self.subject.event)
        began = time.monotonic()
        rows = chunks.read(self.subject, self.subject.query(keys=keys), self._chunk_bytes)
        seconds = time.monotonic() - began
        if not rows.exhausted:  # they come in the order of the key
            texts = [text for _, text in chosen]
            chosen = chosen[: texts.index(rows.last_key or ()) + 1]

        def finish(incomplete: frozenset[bytes]) -> None:
            """The stream's thread has published the rows."""
            if incomplete:
                self._translator.read_again(self.run.event, incomplete)
            done = self.run.rows + len(chosen)
            share = min(MOST_SHARE, done / max(self._estimated or 0, done, 1))
            self._after = chosen[-1][1]
            after = None if self.subject.key_is_masked else self._after
            self.run = self.run.advanced(after=after, rows=done, scanned=done, share=share)
            self._translator.note(self.run.event, self.run.id, self.run.to_json())

        unseen = chunks.publish(self.subject, window, rows, b"reread", self.run.to, finish)
        if unseen:
            chunks.wait_until_seen(unseen, self._waiting)
            return
        for _ in chosen:
            self._keys.popleft()
        readable = sizing.next_rows(len(chosen), len(chosen), rows.size_bytes, seconds, self._chunk_bytes)
        self._limit = min(readable, sizing.publishable_rows(len(chosen), chunks.publishing_seconds))
