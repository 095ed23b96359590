"""Several threads on one run: chunks are read side by side, and published in the order of the key."""

from __future__ import annotations

import json
import random
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any, cast

import pytest

from cdc.rereads import RereadQueue
from cdc.snapshot import sizing
from cdc.snapshot.chunks import Chunks
from cdc.snapshot.in_hand import RunInHand
from cdc.snapshot.marks import Stopped
from cdc.snapshot.run import Run
from cdc.snapshot.subject import Subject
from cdc.snapshot.visibility import Snapshot, Window
from cdc.snapshot.waiting import Waiting
from cdc.source.chunk import ChunkRows
from cdc.translation import Translator
from transforms.position import LSN
from transforms.row import EncodedRow

EVENT = "customer.v1"
THREADS = 3
SNAPSHOT = Snapshot(1, 1, frozenset())
Key = tuple[str, ...]


@dataclass
class Query:
    after: Key | None = None
    until: Key | None = None
    limit: int | None = None


@dataclass
class Table:
    """Rows with the keys 00000, 00001, ...; also the subject, the translator and every thread's chunks."""

    keys: list[str]
    most_rows_at_once: int = 1 << 30
    """As a chunk's bytes would cut it."""
    before_read: Callable[[Query], None] = lambda _: None
    chosen: Callable[[str], bool] = lambda _: True
    """Whether a row meets the condition of the snapshot."""
    refuse: Callable[[list[str]], bool] = lambda _: False
    """Whether a chunk with these keys misses a transaction that it should have seen."""
    event: str = EVENT
    key_is_masked: bool = False
    estimated_rows: int = 100
    seconds_a_row: float = 0.0
    """How long publishing takes."""
    publishing_seconds: float = 0.0
    open_windows: int = 0
    reads: list[Query] = field(default_factory=list)
    published: list[str] = field(default_factory=list)
    incomplete: frozenset[bytes] = frozenset()
    """Keys of rows that leave their chunk, and must be read again."""
    notes: list[dict[str, Any]] = field(default_factory=list)
    lock: threading.Lock = field(default_factory=threading.Lock)
    latest_end: LSN = field(default=LSN(7))
    rereads: RereadQueue = field(default_factory=RereadQueue)

    def query(self, **parts: Any) -> Query:
        return Query(**parts)

    def open(self, event: str) -> Window:
        assert event == EVENT
        with self.lock:
            self.open_windows += 1
        return Window(frozenset(), frozenset())

    def give_up(self, event: str, window: Window) -> None:
        with self.lock:
            self.open_windows -= 1

    def read(self, subject: Subject, query: Query, budget_bytes: int) -> ChunkRows[EncodedRow]:
        self.before_read(query)
        with self.lock:
            self.reads.append(query)
            found = [
                key
                for key in sorted(self.keys)
                if (query.after is None or key > query.after[0]) and (query.until is None or key <= query.until[0])
            ]
        most = min(self.most_rows_at_once, len(found) if query.limit is None else query.limit)
        taken = found[:most]
        exhausted = len(found) <= most and len(taken) != query.limit
        last = (taken[-1],) if taken else None
        rows: list[EncodedRow] = [(key.encode(), b"{}") for key in taken if self.chosen(key)]
        return ChunkRows(SNAPSHOT, rows, last, len(taken), len(taken), exhausted)

    def publish(
        self,
        subject: Subject,
        window: Window,
        rows: ChunkRows[EncodedRow],
        origin: bytes,
        to: str | None,
        finish: Callable[[frozenset[bytes]], None],
    ) -> tuple[int, ...]:
        self.give_up(EVENT, window)
        keys = [row[0].decode() for row in rows.rows]
        if self.refuse(keys):
            return (7,)
        with self.lock:
            self.published += keys
            self.publishing_seconds = self.seconds_a_row * len(keys)
        finish(self.incomplete.intersection(map(str.encode, keys)))
        return ()

    def wait_until_seen(self, transactions: tuple[int, ...], waiting: Waiting) -> None:
        assert transactions == (7,)

    def note(self, event: str, run_id: str, state: str) -> None:
        self.notes.append(json.loads(state))

    def read_again(self, event: str, keys: set[bytes]) -> None:
        self.rereads.add(event, keys, self.latest_end)


def keys(count: int) -> list[str]:
    return [f"{number:05}" for number in range(count)]


def in_hand(
    table: Table,
    run: Run | None = None,
    waiting: Waiting | None = None,
    held_by: Callable[[], str | None] = lambda: None,
) -> RunInHand:
    run = run or Run("r", EVENT, "running")
    return RunInHand(run, cast(Subject, table), cast(Translator, table), waiting or Waiting(), held_by, 1 << 20)


def work_through(table: Table, run: RunInHand) -> None:
    def work() -> None:
        while not run.is_complete:
            run.work(cast(Chunks, table))

    with ThreadPoolExecutor(THREADS) as threads:
        for done in [threads.submit(work) for _ in range(THREADS)]:
            done.result(timeout=60)


@pytest.fixture(autouse=True)
def small_chunks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sizing, "FIRST_ROWS", 5)
    monkeypatch.setattr(sizing, "next_rows", lambda limit, *_: limit)


def test_every_row_is_published_once_in_the_order_of_the_key() -> None:
    table = Table(keys(98), before_read=lambda _: time.sleep(random.random() / 500))
    run = in_hand(table)
    work_through(table, run)
    assert table.published == keys(98)
    assert table.open_windows == 0
    assert [note["rows"] for note in table.notes] == [*range(5, 98, 5), 98]
    assert [tuple(note["after"]) for note in table.notes] == [(f"{rows - 1:05}",) for rows in [*range(5, 98, 5), 98]]
    assert (run.run.rows, run.run.share, run.run.after) == (98, 0.98, ("00097",))


def test_a_run_is_not_told_to_be_whole_before_it_is_over() -> None:
    table = Table(keys(150))  # of which the planner knows 100
    work_through(table, in_hand(table))
    assert {note["share"] for note in table.notes if note["rows"] >= 100} == {0.99}


@pytest.mark.parametrize("count", [0, 1, 5, 10])
def test_it_ends_where_the_rows_do(count: int) -> None:
    table = Table(keys(count))
    work_through(table, in_hand(table))
    assert (table.published, table.open_windows) == (keys(count), 0)


def test_a_run_that_was_broken_off_goes_on_behind_its_last_chunk() -> None:
    table = Table(keys(20))
    work_through(table, in_hand(table, Run("r", EVENT, "running", after=("00009",), rows=10)))
    assert table.published == keys(20)[10:]
    assert table.notes[-1]["rows"] == 20


def test_rows_that_are_left_out_count_for_how_far_it_is() -> None:
    table = Table(keys(20), chosen=lambda key: key in ("00001", "00013"))
    run = in_hand(table)
    work_through(table, run)
    assert table.published == ["00001", "00013"]
    assert [(note["after"], note["rows"], note["scanned"], note["share"]) for note in table.notes] == [
        (["00004"], 1, 5, 0.05),
        (["00009"], 1, 10, 0.1),
        (["00014"], 2, 15, 0.15),
        (["00019"], 2, 20, 0.2),
        (["00019"], 2, 20, 0.2),
    ]


def test_a_chunk_that_missed_something_is_read_again_with_all_that_is_in_its_range_by_then() -> None:
    table = Table([f"{number:05}" for number in range(0, 100, 2)], most_rows_at_once=7)
    refused = threading.Event()

    def refuse(found: list[str]) -> bool:
        if "00010" not in found or refused.is_set():
            return False
        refused.set()
        with table.lock:  # rows come in between, so that the range has more than fit at once; and its last one goes
            table.keys += [f"{number:05}" for number in range(11, 19, 2)]
            table.keys += [f"{number:05}a" for number in range(10, 18)]
            table.keys.remove(found[-1])
        return True

    table.refuse = refuse
    work_through(table, in_hand(table))
    assert refused.is_set()
    assert table.published == sorted(table.keys)
    assert [note["after"] for note in table.notes] == sorted(note["after"] for note in table.notes)
    again = [query for query in table.reads if query.until is not None]
    assert len(again) > 2
    assert {query.until for query in again} == {("00018",)}


@pytest.mark.parametrize("before", [0, 50])
def test_an_empty_chunk_that_missed_something_is_read_again(before: int) -> None:
    """What it missed was published before the run began, so that a sink which does not see it in the run sweeps it."""
    table = Table(keys(before))
    missed = f"{before:05}"

    def refuse(found: list[str]) -> bool:
        if found or missed in table.keys:
            return False
        with table.lock:
            table.keys.append(missed)
        return True

    table.refuse = refuse
    work_through(table, in_hand(table))
    assert table.published == keys(before + 1)


def test_a_masked_key_is_not_stored_so_the_run_would_begin_anew() -> None:
    table = Table(keys(50), key_is_masked=True)
    work_through(table, in_hand(table))
    assert table.published == keys(50)
    assert {note["after"] for note in table.notes} == {None}
    assert [note["rows"] for note in table.notes][-1] == 50


def test_threads_that_wait_for_their_turn_stop_with_the_session() -> None:
    waiting, begun = Waiting(), threading.Barrier(2)
    first = True

    def stall(found: list[str]) -> bool:
        nonlocal first
        if first:
            first = False
            begun.wait(10)
            waiting.stopped.wait(10)
            raise Stopped
        return False

    table = Table(keys(50), refuse=stall)
    run = in_hand(table, waiting=waiting)
    with ThreadPoolExecutor(2) as threads:
        stalled = threads.submit(run.work, cast(Chunks, table))
        begun.wait(10)
        second = threads.submit(run.work, cast(Chunks, table))
        waiting.stopped.set()
        for thread in (stalled, second):
            with pytest.raises(Stopped):
                thread.result(timeout=60)
    assert table.published == []


def test_a_chunk_has_no_more_rows_than_are_published_in_time(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sizing, "LEAST_ROWS", 2)
    table = Table(keys(100), seconds_a_row=sizing.PUBLISHING_SECONDS / 3)
    run = in_hand(table)
    while not run.is_complete:
        run.work(cast(Chunks, table))
    assert [query.limit for query in table.reads[:4]] == [5, 3, 3, 3]


def test_a_small_table_is_left_to_one_thread() -> None:
    table = Table(keys(50))
    run = in_hand(table)
    wanted = [run.wants_threads]
    run.threads = 1
    wanted.append(run.wants_threads)
    run.work(cast(Chunks, table))
    assert [*wanted, run.wants_threads] == [True, False, True]


def test_no_chunk_is_begun_while_its_stream_is_full() -> None:
    reasons = iter(["the readers of stream customer", None])
    run = in_hand(Table(keys(50)), held_by=lambda: next(reasons))
    assert [run.wants_threads, run.wants_threads] == [False, True]


def test_a_run_ends_when_rows_that_left_its_chunks_are_published_though_they_are_to_be_read_again_since() -> None:
    table = Table(keys(10), incomplete=frozenset([b"00003"]))
    run = in_hand(table)
    work_through(table, run)
    ends = [run.may_end]
    taken = table.rereads.take(EVENT, 10)
    assert taken is not None
    table.rereads.add(EVENT, {b"00003"}, LSN(8))
    ends.append(run.may_end)
    table.rereads.done(EVENT, taken)
    ends.append(run.may_end)
    assert taken.keys == {b"00003"}
    assert ends == [False, False, True]
