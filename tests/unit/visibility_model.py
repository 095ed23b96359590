"""A model of Postgres, of the reader's chunks and of a replica, for the visibility rule.

A transaction locks the rows it writes until it is visible; its commit record enters the log some time before that.
The reader delivers the log in order, reads chunks between marks, several of an event at a time, and may reconnect. The
replica applies what is published, in the order of the stream.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Literal, NamedTuple

from cdc.snapshot.visibility import Deliveries, Snapshot, Verdict, Window

KEYS = (b"a", b"b", b"c")
WRITERS = 3
CHUNKS = 2
EVENT = "row.v1"
FIRST_XID = (1 << 32) - 4  # so that ids wrap around while the model runs

Judge = Callable[[Deliveries, Window, Snapshot], Verdict]
Rows = dict[bytes, int]
Do = Literal["write", "truncate", "log", "see", "deliver", "drain", "mark", "read", "note", "reconnect"]


class Version(NamedTuple):
    """A row's state: versions rise with each write, also when it deletes."""

    number: int
    exists: bool


@dataclass
class Transaction:
    xid: int
    rows: dict[bytes, Version] = field(default_factory=dict)
    truncates: bool = False
    logged: bool = False


@dataclass
class Chunk:
    """One of the chunks that may be in hand at a time, each of all rows."""

    stage: Literal["idle", "low sent", "low came", "read", "high sent"] = "idle"
    window: Window | None = None
    read: tuple[Snapshot, dict[bytes, Version]] | None = None
    published: int = 0


class WentBack(AssertionError):
    """A replica's row became older than it was."""


@dataclass
class Model:
    """Source, log, reader and replica."""

    judge: Judge
    visible: dict[bytes, Version] = field(default_factory=lambda: dict.fromkeys(KEYS, Version(1, True)))
    replica: dict[bytes, Version] = field(default_factory=dict)
    open: list[Transaction | None] = field(default_factory=lambda: [None] * WRITERS)
    log: list[Transaction | Callable[[], None]] = field(default_factory=list)
    delivered: int = 0
    applied: int = 0
    version: int = 1
    next_xid: int = FIRST_XID
    chunks: list[Chunk] = field(default_factory=lambda: [Chunk() for _ in range(CHUNKS)])

    def __post_init__(self) -> None:
        self.deliveries = Deliveries(self.snapshot())

    # --- the source --------------------------------------------------------------------------------------------------

    def snapshot(self) -> Snapshot:
        running = frozenset(each.xid for each in self.open if each)
        return Snapshot(min([self.next_xid, *running]), self.next_xid, running)

    def write(self, writer: int, key: bytes, *, exists: bool) -> None:
        others = [each for number, each in enumerate(self.open) if each and number != writer]
        transaction = self._writing(writer)
        if transaction and not any(key in other.rows for other in others):
            self.version += 1
            transaction.rows[key] = Version(self.version, exists)

    def truncate(self, writer: int) -> None:
        if not any(each for number, each in enumerate(self.open) if number != writer) and (
            transaction := self._writing(writer)
        ):
            for key in KEYS:
                self.write(writer, key, exists=False)
            transaction.truncates = True

    def _writing(self, writer: int) -> Transaction | None:
        transaction = self.open[writer]
        if transaction is None:
            transaction = self.open[writer] = Transaction(self.next_xid)
            self.next_xid += 1
        return None if transaction.logged else transaction

    def commit(self, writer: int) -> None:
        if (transaction := self.open[writer]) and not transaction.logged:
            transaction.logged = True
            self.log.append(transaction)

    def become_visible(self, writer: int) -> None:
        if (transaction := self.open[writer]) and transaction.logged:
            self.visible |= transaction.rows
            self.open[writer] = None

    # --- the reader --------------------------------------------------------------------------------------------------

    def deliver(self) -> None:
        if self.delivered == len(self.log):
            return
        entry = self.log[self.delivered]
        self.delivered += 1
        if not isinstance(entry, Transaction):
            entry()
            return
        self.deliveries.delivered(entry.xid & 0xFFFFFFFF)
        if entry.truncates:
            self.deliveries.touched_all(EVENT)
        for key in entry.rows:
            self.deliveries.touched(EVENT, key)
        if self.delivered > self.applied:  # else the stream has it already and refuses it
            self.applied = self.delivered
            for key, version in entry.rows.items():
                self.apply(key, version)

    def mark(self, number: int) -> None:
        chunk = self.chunks[number]
        if chunk.stage == "idle":
            chunk.stage = "low sent"
            self.log.append(lambda: self._low_came(chunk))
        elif chunk.stage == "read":
            chunk.stage = "high sent"
            self.log.append(lambda: self._high_came(chunk))

    def _low_came(self, chunk: Chunk) -> None:
        chunk.stage = "low came"
        chunk.window = self.deliveries.open(EVENT)

    def read(self, number: int) -> None:
        chunk = self.chunks[number]
        if chunk.stage == "low came":
            chunk.stage = "read"
            chunk.read = self.snapshot(), dict(self.visible)

    def _high_came(self, chunk: Chunk) -> None:
        assert chunk.window is not None
        assert chunk.read is not None
        snapshot, rows = chunk.read
        verdict = self.judge(self.deliveries, chunk.window, snapshot)
        chunk.stage = "idle"
        if not verdict.unseen:
            chunk.published += 1
            for key, version in rows.items():
                if version.exists and verdict.keeps(key):
                    self.apply(key, version)

    def note_snapshot(self) -> None:
        self.deliveries.seen(self.snapshot())

    def reconnect(self, resent: int) -> None:
        self.deliveries = Deliveries(self.snapshot())
        self.delivered = max(0, self.delivered - resent)
        # Marks of the earlier connection are in the log still, but their rows are lost.
        self.log = [entry if isinstance(entry, Transaction) else _ignored for entry in self.log]
        self.chunks = [Chunk() for _ in range(CHUNKS)]

    def apply(self, key: bytes, version: Version) -> None:
        if key in self.replica and version.number < self.replica[key].number:
            raise WentBack(f"{key!r} went from version {self.replica[key].number} to {version.number}")
        self.replica[key] = version

    # --- the end -----------------------------------------------------------------------------------------------------

    def finish(self) -> None:
        """Everything becomes visible and is delivered, and a chunk is published."""
        self.drain()
        for writer in range(WRITERS):
            self.commit(writer)
            self.become_visible(writer)
        self.drain()
        for number, chunk in enumerate(self.chunks):
            while chunk.published == 0 or chunk.stage != "idle":
                self.mark(number)
                self.drain()
                self.read(number)

    def drain(self) -> None:
        while self.delivered < len(self.log):
            self.deliver()

    def existing(self, rows: dict[bytes, Version]) -> Rows:
        return {key: version.number for key, version in rows.items() if version.exists}


def _ignored() -> None:
    """A mark that is not in memory any more."""
