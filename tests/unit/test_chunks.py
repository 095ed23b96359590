"""What becomes of the rows of a chunk at its high mark."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Any, cast

import pytest

from cdc.route import Route
from cdc.snapshot import marks
from cdc.snapshot.chunks import Chunks
from cdc.snapshot.marks import Marks
from cdc.snapshot.rereading import Rereader
from cdc.snapshot.subject import Subject
from cdc.snapshot.visibility import Snapshot
from cdc.snapshot.waiting import Waiting
from cdc.source.chunk import ChunkQuery, ChunkRows
from cdc.source.connection import Source
from tests.builders import message, transaction, update
from tests.unit.translation_harness import CUSTOMERS, PREFIX, Log
from transforms.position import LSN, Position
from transforms.row import EncodedRow
from transforms.tuple_data import UNCHANGED

EVENT = "customer.v1"


@dataclass
class Customers:
    """The subject; its queries are their keys."""

    route: Route
    event: str = EVENT
    mapping: Any = field(default_factory=lambda: SimpleNamespace(embeds=(), ways={}))

    def query(self, *, keys: frozenset[bytes]) -> frozenset[bytes]:
        return keys


class Beside(Chunks):
    """Chunks of a log that brings each mark at once, and a change of one row behind each query."""

    def __init__(self, log: Log) -> None:
        super().__init__(cast(Source, None), Marks(PREFIX, log.translator.marks), log.translator, lambda: None)
        self._log = log
        self.changed: list[bytes] = []
        self.fitting: int | None = None
        """How many rows are read at a time; None: all that are asked for."""
        self.lsn = 100

    def read(
        self, subject: Subject, query: ChunkQuery | Callable[[], ChunkQuery], budget_bytes: int
    ) -> ChunkRows[EncodedRow]:
        snapshot = Snapshot(self.lsn, self.lsn, frozenset())
        if self.changed:
            self.feed(update(CUSTOMERS, self.changed.pop(0), b"Bo", UNCHANGED))
        asked = sorted(cast(Any, query() if callable(query) else query))
        rows: list[EncodedRow] = [(key, b"{}") for key in asked[: self.fitting]]
        return ChunkRows(snapshot, rows, None, len(rows), 0, exhausted=len(rows) == len(asked))

    def feed(self, change: bytes) -> None:
        self.lsn += 10
        self._log.feed(transaction(self.lsn, change, xid=self.lsn, end=self.lsn + 8))


@pytest.fixture
def log() -> Log:
    return Log()


@pytest.fixture
def chunks(log: Log, monkeypatch: pytest.MonkeyPatch) -> Beside:
    return beside(log, monkeypatch)


def beside(log: Log, monkeypatch: pytest.MonkeyPatch) -> Beside:
    made = Beside(log)
    monkeypatch.setattr(marks, "emit_message", lambda _, prefix, content: made.feed(message(prefix, content)))
    return made


def read_again(log: Log, chunks: Beside) -> list[str]:
    """Read again what waits; returns what is published by then."""
    subject = cast(Subject, Customers(log.routes[CUSTOMERS][0]))
    Rereader(lambda: nullcontext(chunks), log.translator, {EVENT: subject}, Waiting(), 1 << 20).read_again(chunks)
    return log.take()


def test_a_row_that_changes_whenever_it_is_read_again_is_published_each_time_and_holds_nothing_older(
    log: Log, chunks: Beside
) -> None:
    log.feed(transaction(50, xid=5, end=58))
    log.feed(transaction(60, update(CUSTOMERS, b"2", b"Ada", UNCHANGED, key=[b"1", None, None]), xid=6, end=68))
    chunks.changed = [b"2", b"2"]
    before = log.builder.end
    assert read_again(log, chunks) == ["customer 60-1000000 delete 1 end", "customer 130-1000000 upsert 2 reread end"]
    assert (before, log.builder.end) == (58, 118)
    assert read_again(log, chunks) == ["customer 160-1000000 upsert 2 reread end"]
    assert log.builder.end == 148
    assert read_again(log, chunks) == ["customer 180-1000000 upsert 2 reread end"]
    assert log.builder.end == 188


def test_a_row_whose_change_may_be_in_the_stream_is_not_published_as_it_was_before(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """An earlier connection has published the change; this one reads the row again, at first without it."""
    log = Log(ends={"customer": Position(LSN(125), 1)})
    chunks = beside(log, monkeypatch)
    log.translator.read_again(EVENT, {b'{"id":2}'})
    chunks.changed = [b"2"]
    assert read_again(log, chunks) == []
    assert log.builder.end == 10
    assert read_again(log, chunks) == ["customer 150-1000000 upsert 2 reread end"]
    assert log.builder.end == 158


def test_rows_that_do_not_fit_go_on_waiting_and_hold_what_they_held(log: Log, chunks: Beside) -> None:
    log.feed(transaction(50, xid=5, end=58))
    log.translator.read_again(EVENT, {b'{"id":%d}' % number for number in range(1, 6)})
    chunks.fitting = 2
    published = []
    while log.translator.rereads.events:
        assert log.builder.end in (10, 58)
        published.append([line.split()[3] for line in read_again(log, chunks)])
    assert published == [["1", "2"], ["3", "4"], ["5"]]
    assert log.builder.end > 100


def test_changes_of_other_rows_leave_nothing_to_read_again(log: Log, chunks: Beside) -> None:
    log.translator.read_again(EVENT, {b'{"id":1}'})
    chunks.changed = [b"7"]
    assert read_again(log, chunks) == [
        "customer 120-1000000 upsert 7 end",
        "customer 130-1000000 upsert 1 reread end",
    ]
    assert log.translator.rereads.events == ()
