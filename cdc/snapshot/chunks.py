"""One chunk at a time: read between its marks, judged and published at the high one."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping

from cdc.errors import SourceError, SourceRefused
from cdc.snapshot.marks import Marks
from cdc.snapshot.subject import Subject
from cdc.snapshot.visibility import Window
from cdc.snapshot.waiting import Waiting
from cdc.source.chunk import ChunkQuery, ChunkRows, read_chunk
from cdc.source.connection import Source
from cdc.source.tables import TableShape, table_shapes
from cdc.source.transactions import current_snapshot
from cdc.translation import Translator
from transforms.row import EncodedRow


class TableReshaped(SourceError):
    """A table is not what it was when the session began; the next session looks at it anew."""

    retryable = True
    remedy = "Nothing: the reader follows the table by itself, or stops with what does not fit."


class Chunks:
    """Reads and publishes chunks over one connection, for one thread."""

    def __init__(self, source: Source, marks: Marks, translator: Translator, meanwhile: Callable[[], None]) -> None:
        """`meanwhile` is called now and then while a mark is waited for."""
        self.source = source
        self._marks = marks
        self._translator = translator
        self._meanwhile = meanwhile
        self.publishing_seconds = 0.0
        """How long the stream's thread was busy with the chunk that was published last."""

    def open(self, event: str, at_low_mark: Callable[[], None] = lambda: None) -> Window:
        """Set the low mark of a chunk; `at_low_mark` is called there by the stream's thread."""

        def act() -> Window:
            at_low_mark()
            return self._translator.deliveries.open(event)

        return self._marks.emit(self.source, act, meanwhile=self._meanwhile)

    def give_up(self, event: str, window: Window) -> None:
        """There is nothing to read for a low mark."""
        self._marks.emit(self.source, lambda: self._translator.deliveries.give_up(event, window))

    def read(
        self, subject: Subject, query: ChunkQuery | Callable[[], ChunkQuery], budget_bytes: int
    ) -> ChunkRows[EncodedRow]:
        """Read and encode rows; a query may be made in the transaction that they are read in.

        Raises TableReshaped, and what the encoder raises.
        """
        oids = {table.oid for table in subject.mapping.tables.values()}
        while True:
            before = table_shapes(self.source, oids)
            try:
                rows = read_chunk(self.source, query, budget_bytes, subject.route.encoder.lines)
            except SourceRefused:  # perhaps since a column is not there any more
                self._expect_unaltered(subject, table_shapes(self.source, oids))
                raise
            after = table_shapes(self.source, oids)
            self._expect_unaltered(subject, after)
            if all(before[oid].storage == after[oid].storage for oid in oids):
                return rows

    @staticmethod
    def _expect_unaltered(subject: Subject, shapes: Mapping[int, TableShape]) -> None:
        """Raise TableReshaped where columns that are read are not there, or of other types than was thought."""
        altered = [
            str(table.name)
            for table in {table.oid: table for table in subject.mapping.tables.values()}.values()
            if not subject.reads_right(table.name, shapes[table.oid].types)
        ]
        if altered:
            raise TableReshaped(f"the columns of {', '.join(altered)} have changed")

    def publish(
        self,
        subject: Subject,
        window: Window,
        rows: ChunkRows[EncodedRow],
        origin: bytes,
        to: str | None,
        finish: Callable[[frozenset[bytes]], None],
    ) -> tuple[int, ...]:
        """Set the high mark and publish there; returns the transactions that the rows should have seen.

        When there are any, nothing was published. Else `finish` was called behind the rows, with the keys of those that
        left the chunk though their own events are not whole: they must be read again. Rows that were never in the chunk
        need not be, or a table whose rows are changed all the time would have some to read again for ever.
        """
        translator = self._translator

        def act() -> tuple[int, ...]:
            began = time.monotonic()
            verdict = translator.deliveries.close(subject.event, window, rows.snapshot, to)
            if not verdict.unseen:
                kept = rows.rows if verdict.keeps_all else [row for row in rows.rows if verdict.keeps(row[0])]
                translator.entries.found(subject.route, kept, origin, to)
                translator.deliveries.found(subject.event, [row[0] for row in kept], rows.snapshot, to)
                left = verdict.incomplete  # those keys are taken that know how the row is found
                finish(left and frozenset(row[0] for row in rows.rows if row[0] in left))
            self.publishing_seconds = time.monotonic() - began
            return verdict.unseen

        return self._marks.emit(self.source, act, meanwhile=self._meanwhile)

    def wait_until_seen(self, transactions: tuple[int, ...], waiting: Waiting) -> None:
        """Wait until a snapshot sees transactions that are committed or open."""
        names = ", ".join(map(str, transactions[:5]))
        waiting.until(
            f"transactions that are committed or open but not visible yet ({names})",
            lambda: all(map(current_snapshot(self.source).sees, transactions)),
        )
