"""Rows found by queries and published at marks: initial and requested snapshots, and rows that must be read again.

Runs in a thread of its own beside the stream. A chunk takes four steps, and only the first and the last touch what
belongs to the stream's thread, by way of logical messages that come back in the order of the log:

1. a low mark is emitted; when the stream delivers it, the keys of changed rows are kept from there on;
2. the rows are read in one REPEATABLE READ transaction, together with its snapshot;
3. a high mark is emitted;
4. when the stream delivers it, `chunking.Window` judges the chunk, and its rows are published at the mark.
"""

from __future__ import annotations

import json
import logging
import secrets
import threading
import time
from collections.abc import Callable, Mapping
from concurrent.futures import CancelledError, Future, wait
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any, TypeVar

from cdc.catalog import EventMapping
from cdc.chunking import Verdict
from cdc.control import Control
from cdc.counters import Counters
from cdc.errors import SourceError
from cdc.rereads import Rereads
from cdc.route import Route
from cdc.snapshot_run import Run
from cdc.source.chunk import ChunkQuery, ChunkRows, read_chunk
from cdc.source.connection import Source
from cdc.source.tables import table_shape
from cdc.source.transactions import current_snapshot, writers
from cdc.source.write_ahead_log import emit_message
from cdc.translation import Translator
from transforms import wire
from transforms.column_type import RelationColumn
from transforms.encoder import compile_encoder

log = logging.getLogger(__name__)

Result = TypeVar("Result")

CHUNK_ROWS = 10_000
CHUNK_BYTES = 8 << 20
REREAD_KEYS = 1_000
PATIENCE_SECONDS = 2.0
"""After how long a wait is worth a line in the log."""
POLL_SECONDS = 0.2
"""How often requests are looked for, and waiting transactions looked at."""
SEEN_INTERVAL_SECONDS = 1.0
VERIFY_INTERVAL_SECONDS = 5.0
"""How often it is looked whether tables and publication are still those that are mapped."""


@dataclass(frozen=True, slots=True)
class Subject:
    """An event that can be read by query."""

    mapping: EventMapping
    route: Route
    estimated_rows: int

    @classmethod
    def of(cls, mapping: EventMapping, rev: int) -> Subject:
        """Compile the encoder for rows in the order of the event's columns."""
        relation = [RelationColumn(column.name, column.type) for column in mapping.columns]
        encoder = compile_encoder(relation, mapping.names, mapping.key)
        route = Route(mapping.label, mapping.stream, encoder, rev=rev)
        return cls(mapping, route, mapping.table.estimated_rows)

    def query(self, after: tuple[str, ...] | None = None, keys: frozenset[bytes] | None = None) -> ChunkQuery:
        """The rows behind `after` in key order, or those with one of `keys`."""
        by_name = {column.name: column for column in self.mapping.columns}
        key = tuple(by_name[name] for name in self.mapping.key)
        table = self.mapping.table
        return ChunkQuery(table.name, self.mapping.columns, key, after, CHUNK_ROWS, keys, only=table.kind != "p")


@dataclass(slots=True)
class _Collected:
    """What a low mark found waiting to be read again."""

    taken: list[Rereads] = field(default_factory=list)
    keys: set[bytes] = field(default_factory=set)


class TableReshaped(SourceError):
    """A table is not what it was when the session began; the next session looks at it anew."""

    retryable = True
    remedy = "Nothing: the reader follows the table by itself, or stops with what does not fit."


class Stopped(Exception):
    """The session ends; the work in hand is taken up by the next one."""


class SnapshotWorker:
    """Works through the runs of one session. `run` is the thread's body."""

    def __init__(
        self,
        source: Source,
        control: Control,
        translator: Translator,
        subjects: Mapping[str, Subject],
        prefix: str,
        post: Callable[[Callable[[], None]], None],
        verify: Callable[[Source], None],
        counters: Counters,
    ) -> None:
        """`post` has a function called by the stream's thread; `verify` is called every few seconds and raises what
        it finds wrong with the mapping."""
        self._source = source
        self._control = control
        self._translator = translator
        self._subjects = subjects
        self._prefix = prefix
        self._post = post
        self._verify = verify
        self._counters = counters
        self._verified_at = time.monotonic()
        self._nonce = secrets.token_hex(8)
        self._marks = 0
        self._awaited: Future[Any] | None = None
        self._stop = threading.Event()
        self._wake = threading.Event()
        self._seen_at = 0.0
        self._completed: set[str] = set()
        """Runs whose end is published by this session, though it may not be stored yet."""
        self.current: Run | None = None
        """The run in hand, for progress."""
        self.waiting_for: str | None = None
        """What the run in hand waits for, in words."""
        self.when_idle: Callable[[], None] = lambda: None
        self.idle = threading.Event()
        """Set while there is neither a run nor a request to work on."""

    # --- the thread --------------------------------------------------------------------------------------------------

    def run(self) -> None:
        """Work until `stop`. Raises what the source or Redis raise."""
        try:
            while not self._stop.is_set():
                self._let_window_forget()
                self._verify_now_and_then()
                self._read_again()
                self._control.take_requests(list(self._subjects))
                run = self._next_run()
                if run is None:
                    self.idle.set()
                    self.when_idle()
                    self._wake.wait(POLL_SECONDS)
                    self._wake.clear()
                else:
                    self.idle.clear()
                    self._work(run)
        except (Stopped, CancelledError):
            log.debug("snapshot work stops with its session")

    def stop(self) -> None:
        """Have `run` return soon; may be called from any thread, after the stream's thread has ended its work."""
        self._stop.set()
        self._wake.set()
        if (awaited := self._awaited) is not None:
            awaited.cancel()
        with suppress(SourceError):  # a source that cannot be reached runs nothing for us
            self._source.cancel()

    def wake(self) -> None:
        """There is something to do."""
        self.idle.clear()
        self._wake.set()

    def _next_run(self) -> Run | None:
        runs = self._control.runs()
        self._control.forget_runs([run.id for run in runs if run.event not in self._subjects])
        waiting = (run for run in runs if run.state != "done" and run.id not in self._completed)
        return next((run for run in waiting if run.event in self._subjects), None)

    def _let_window_forget(self) -> None:
        """Give the window a newer snapshot. Only here, between chunks: it must be older than any chunk's."""
        if time.monotonic() - self._seen_at >= SEEN_INTERVAL_SECONDS and self._translator.window.waits_for:
            snapshot = current_snapshot(self._source)
            self._post(lambda: self._translator.window.seen(snapshot))
            self._seen_at = time.monotonic()

    def _verify_now_and_then(self) -> None:
        if time.monotonic() - self._verified_at >= VERIFY_INTERVAL_SECONDS:
            self._verify(self._source)
            self._verified_at = time.monotonic()

    # --- one run -----------------------------------------------------------------------------------------------------

    def _work(self, run: Run) -> None:
        subject = self._subjects[run.event]
        if run.state == "pending":
            if run.first:
                self._wait_for_writers(subject)
            self._control.forget_runs([old.id for old in self._control.runs() if old.replaced_by(run)])
            run = run.advanced(state="running", started_at=time.time())
            self._publish_mark(run, wire.RUN_BEGIN, subject)
            log.info("snapshot of %s begins (about %d rows)", run.event, subject.estimated_rows)
        else:
            log.info("snapshot of %s goes on behind row %d", run.event, run.rows)
        self._show(run)
        exhausted = False
        while not exhausted:
            self._let_window_forget()
            self._verify_now_and_then()
            self._read_again()
            run, exhausted = self._publish_chunk(run, subject)
            self._show(run)
        while run.event in self._translator.rereads.events:
            self._read_again()
        run = run.advanced(state="done", share=1.0, finished_at=time.time())
        self._publish_mark(run, wire.RUN_END, subject)
        self._completed.add(run.id)
        self._show(run)
        self.current = None
        log.info("snapshot of %s is complete: %d rows", run.event, run.rows)

    def _show(self, run: Run) -> None:
        self.current = self._counters.runs[run.event] = run

    def _publish_chunk(self, run: Run, subject: Subject) -> tuple[Run, bool]:
        while True:
            rows = self._read(subject, lambda: subject.query(run.after))
            share = min(1.0, (run.rows + len(rows.rows)) / max(subject.estimated_rows, run.rows + len(rows.rows), 1))
            advanced = run.advanced(after=rows.last_key or run.after, rows=run.rows + len(rows.rows), share=share)
            verdict = self._publish_rows(subject, rows, b"snapshot", run.to, advanced, None)
            if not verdict.unseen:
                return advanced, rows.exhausted
            self._wait_until_seen(verdict)

    def _publish_mark(self, run: Run, name: str, subject: Subject) -> None:
        def publish() -> None:
            data: dict[str, object] = {"run": run.id, "event": run.event}
            self._translator.publish_mark(subject.mapping.stream, name, data, run.to)
            self._translator.builder.note(run.id, run.to_json())

        self._emit(publish)

    # --- rows that must be read again --------------------------------------------------------------------------------

    def _read_again(self) -> None:
        """Publish whole rows for changes that could not be published as they were."""
        for event in self._translator.rereads.events:
            subject = self._subjects[event]
            while (verdict := self._read_some_again(subject)).unseen:
                self._wait_until_seen(verdict)

    def _read_some_again(self, subject: Subject) -> Verdict:
        found = _Collected()

        def collect() -> None:
            found.taken, found.keys = self._translator.rereads.oldest(subject.mapping.label, REREAD_KEYS)

        rows = self._read(subject, lambda: subject.query(keys=frozenset(found.keys)), collect)
        return self._publish_rows(subject, rows, b"reread", None, None, found.taken)

    # --- one chunk ---------------------------------------------------------------------------------------------------

    def _read(
        self, subject: Subject, query: Callable[[], ChunkQuery], at_low_mark: Callable[[], None] | None = None
    ) -> ChunkRows:
        event = subject.mapping.label

        def open_window() -> None:
            self._translator.window.open(event)
            if at_low_mark:
                at_low_mark()

        self._emit(open_window)
        oid, columns = subject.mapping.table.oid, subject.mapping.columns
        while True:
            before = table_shape(self._source, oid)
            rows = read_chunk(self._source, query(), CHUNK_BYTES)
            after = table_shape(self._source, oid)
            if any(after.types.get(column.name) != column.type.pg_type for column in columns):
                raise TableReshaped(f"the columns of {subject.mapping.table.name} have changed")
            if before.storage == after.storage:
                return rows

    def _publish_rows(
        self,
        subject: Subject,
        rows: ChunkRows,
        origin: bytes,
        to: str | None,
        note: Run | None,
        rereads: list[Rereads] | None,
    ) -> Verdict:
        encoded = list(map(subject.route.encoder.line, rows.rows))
        event, translator = subject.mapping.label, self._translator

        def publish() -> Verdict:
            verdict = translator.window.close(rows.snapshot)
            if verdict.unseen:
                return verdict
            for row in encoded:
                if verdict.keeps(row[0]):
                    translator.publish_row(subject.route, row, origin, to)
            if rereads is not None:
                translator.rereads.done(event, rereads)
            if verdict.incomplete:
                translator.read_again(event, set(verdict.incomplete))
            if note is not None:
                translator.builder.note(note.id, note.to_json())
            return verdict

        return self._emit(publish, chunk_in_hand=True)

    def _emit(self, act: Callable[[], Result], *, chunk_in_hand: bool = False) -> Result:
        """Emit a mark and wait until the stream has delivered it and the stream's thread has called `act`.

        Meanwhile the window may forget what newer snapshots see, unless there is a chunk that was read before.
        """
        if self._stop.is_set():
            raise Stopped
        self._marks += 1
        token = f"{self._nonce}-{self._marks}"
        delivered: Future[Result] = Future()

        def deliver() -> None:
            if not delivered.set_running_or_notify_cancel():
                return
            try:
                delivered.set_result(act())
            except BaseException as error:  # the session ends with it; nobody may go on waiting here
                delivered.set_exception(error)
                raise

        self._awaited = delivered
        self._translator.marks[token] = deliver
        emit_message(self._source, self._prefix, json.dumps({"token": token}).encode())
        if self._stop.is_set():
            delivered.cancel()
        while not chunk_in_hand and not delivered.done():
            wait([delivered], timeout=SEEN_INTERVAL_SECONDS)
            self._let_window_forget()
        result = delivered.result()
        self._awaited = None
        return result

    # --- waiting -----------------------------------------------------------------------------------------------------

    def _wait_until_seen(self, verdict: Verdict) -> None:
        """Wait until a snapshot sees the transactions that a chunk should have seen."""
        names = ", ".join(map(str, verdict.unseen[:5]))
        self._poll(
            f"transactions that are committed or open but not visible yet ({names})",
            lambda: all(map(current_snapshot(self._source).sees, verdict.unseen)),
        )

    def _wait_for_writers(self, subject: Subject) -> None:
        """Wait until nobody is left who may have written to a table before it was published."""
        oid = subject.mapping.table.oid
        before = writers(self._source, [oid])
        self._poll(
            f"{len(before)} open transactions that write to {subject.mapping.table.name}",
            lambda: not before & writers(self._source, [oid]),
            self._read_again,
        )

    def _poll(self, what: str, over: Callable[[], bool], meanwhile: Callable[[], None] = lambda: None) -> None:
        started, told = time.monotonic(), False
        while not over():
            meanwhile()
            self._let_window_forget()
            self.waiting_for = what
            if not told and time.monotonic() - started > PATIENCE_SECONDS:
                log.warning("snapshot waits for %s", what)
                told = True
            if self._stop.wait(POLL_SECONDS / 4):
                raise Stopped
        self.waiting_for = None
