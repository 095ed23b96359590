"""Rows that must be read again: found by their keys, or by related rows that were changed; published as a chunk is."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Set
from contextlib import AbstractContextManager

from cdc.errors import ValueRefused
from cdc.related.affected import Found, find
from cdc.related.touching import event_of, waiting_name
from cdc.rereads import Taken
from cdc.snapshot import sizing
from cdc.snapshot.chunks import Chunks
from cdc.snapshot.run import Run
from cdc.snapshot.subject import Subject
from cdc.snapshot.waiting import Waiting
from cdc.source.chunk import ChunkQuery, ChunkRows
from cdc.source.connection import Source
from cdc.source.nesting import touched_types
from cdc.source.relations import fitting
from cdc.translation import Translator
from transforms.row import EncodedRow, source_key

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
        for event in dict.fromkeys(map(event_of, self._translator.rereads.events)):
            self._read_some(chunks, self._subjects[event])

    def _read_some(self, chunks: Chunks, subject: Subject) -> None:
        limit = self._limits.get(subject.event, sizing.FIRST_KEYS)
        reading = _Reading(self._translator, subject, limit)
        while True:
            window = chunks.open(subject.event, reading.take)
            began = time.monotonic()
            rows = self._read(chunks, subject, reading)
            seconds = time.monotonic() - began
            limit = sizing.next_keys(limit, rows.scanned, rows.size_bytes, seconds, self._budget_bytes)
            unread = frozenset() if rows.exhausted else reading.keys.difference(row[0] for row in rows.rows)
            unseen = chunks.publish(subject, window, rows, b"reread", None, reading.finishing(unread))
            if not unseen:
                break
            chunks.wait_until_seen(unseen, self._waiting)
        self._limits[subject.event] = limit

    def _read(self, chunks: Chunks, subject: Subject, reading: _Reading) -> ChunkRows[EncodedRow]:
        def read() -> ChunkRows[EncodedRow]:
            return chunks.read(subject, lambda: reading.choose(chunks.source), self._budget_bytes)

        try:
            return read()
        except ValueRefused:
            if not reading.leave_unfitting(chunks.source):
                raise
            return read()


class _Reading:
    """Some of what waits to be read again of one event."""

    def __init__(self, translator: Translator, subject: Subject, limit: int) -> None:
        """`limit`: so many rows of each kind are read at a time, those that wait and those that others lead to."""
        self._translator = translator
        self._subject = subject
        self._limit = limit
        self._related = {waiting_name(subject.event, related): related for related in subject.mapping.ways}
        """Under which name an embed's values wait -> its path."""
        self._taken: dict[str, Taken] = {}
        self._asked: dict[str, Set[bytes]] = {}
        """What is looked for of each."""
        self._found = Found()
        self.keys: frozenset[bytes] = frozenset()
        """Of the rows to read."""

    def take(self) -> None:
        """At the first low mark, choose what is read; it is the same behind every later one."""
        if not self._taken:
            names = (self._subject.event, *self._related)
            found = {name: self._translator.rereads.take(name, self._limit) for name in names}
            self._taken = {name: taken for name, taken in found.items() if taken is not None}
            self._asked = {name: taken.keys for name, taken in self._taken.items()}

    def leave_unfitting(self, source: Source) -> bool:
        """Look no more for what no row can have any more (see `fitting`); returns whether there is such."""
        asked = {name: self._fitting(source, name, keys) for name, keys in self._asked.items()}
        found, self._asked = asked != self._asked, asked
        return found

    def _fitting(self, source: Source, name: str, keys: Set[bytes]) -> Set[bytes]:
        mapping = self._subject.mapping
        if name in self._related:
            return fitting(source, touched_types(mapping.ways[self._related[name]]), keys)
        by_source = {source_key(key): key for key in keys}
        types = [(field.name, field.column.type.base_type) for field in mapping.key_fields]
        return frozenset(by_source[key] for key in fitting(source, types, by_source.keys()))

    def choose(self, source: Source) -> ChunkQuery:
        """In the transaction that reads: find the rows."""
        touched = {self._related[name]: keys for name, keys in self._asked.items() if name in self._related}
        self._found = find(source, self._subject, touched, self._limit)
        self.keys = frozenset(self._asked.get(self._subject.event, ())) | self._found.keys
        return self._subject.query(keys=self.keys)

    def finishing(self, unread: Set[bytes]) -> Callable[[frozenset[bytes]], None]:
        """What is done at the high mark, behind the rows that were published; `unread`: keys of others."""
        return lambda incomplete: self._finish(incomplete, unread)

    def _finish(self, incomplete: Set[bytes], unread: Set[bytes]) -> None:
        event, found = self._subject.event, self._found
        for name, taken in self._taken.items():
            if name == event:
                self._translator.rereads_done(name, taken, taken.keys & (incomplete | unread))
                continue
            related = self._related[name]
            left = found.left.get(related, frozenset())
            fan_out = found.fan_outs.get(related, frozenset())
            if not found.keys.isdisjoint(incomplete):
                left, fan_out = self._asked[name], frozenset()
            elif not found.keys.isdisjoint(unread):  # they are too large to be read at once
                fan_out = self._asked[name] - left
            if fan_out:
                run = Run.fan_out(event, related, [value.decode() for value in fan_out])
                self._translator.builder.note(run.id, run.to_json())
            self._translator.rereads_done(name, taken, left)
