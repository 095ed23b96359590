"""A model of Postgres, of the reader's chunks and of a replica, for the visibility rule.

A transaction locks the rows it writes until it is visible; its commit record enters the log some time before that.
The reader delivers the log in order, reads chunks between marks and may reconnect. The replica applies what is
published, in the order of the stream.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Literal, NamedTuple

from cdc.chunking import Snapshot, Verdict, Window

KEYS = (b"a", b"b", b"c")
WRITERS = 3
EVENT = "row.v1"
FIRST_XID = (1 << 32) - 4  # so that ids wrap around while the model runs

Judge = Callable[[Window, Snapshot], Verdict]
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
    chunk: tuple[Snapshot, dict[bytes, Version]] | None = None
    stage: Literal["idle", "low sent", "low came", "read", "high sent"] = "idle"
    chunks: int = 0

    def __post_init__(self) -> None:
        self.window = Window(self.snapshot())

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
        self.window.delivered(entry.xid & 0xFFFFFFFF)
        if self.window.event == EVENT:
            if entry.truncates:
                self.window.touched_all()
            for key in entry.rows:
                self.window.touched(key)
        if self.delivered > self.applied:  # else the stream has it already and refuses it
            self.applied = self.delivered
            for key, version in entry.rows.items():
                self.apply(key, version)

    def mark(self) -> None:
        if self.stage == "idle":
            self.stage = "low sent"
            self.log.append(self._low_came)
        elif self.stage == "read":
            self.stage = "high sent"
            self.log.append(self._high_came)

    def _low_came(self) -> None:
        if self.stage == "low sent":
            self.stage = "low came"
            self.window.open(EVENT)

    def read(self) -> None:
        if self.stage == "low came":
            self.stage = "read"
            self.chunk = self.snapshot(), dict(self.visible)

    def _high_came(self) -> None:
        if self.stage != "high sent" or self.chunk is None:
            return  # of an earlier connection
        snapshot, rows = self.chunk
        verdict = self.judge(self.window, snapshot)
        self.stage = "idle"
        if not verdict.unseen:
            self.chunks += 1
            for key, version in rows.items():
                if version.exists and verdict.keeps(key):
                    self.apply(key, version)

    def note_snapshot(self) -> None:
        if self.stage == "idle":
            self.window.seen(self.snapshot())

    def reconnect(self, resent: int) -> None:
        self.window = Window(self.snapshot())
        self.delivered = max(0, self.delivered - resent)
        # Marks of the earlier connection are in the log still, but their rows are lost.
        self.log = [entry if isinstance(entry, Transaction) else _ignored for entry in self.log]
        self.stage = "idle"

    def apply(self, key: bytes, version: Version) -> None:
        if key in self.replica and version.number < self.replica[key].number:
            raise WentBack(f"{key!r} went from version {self.replica[key].number} to {version.number}")
        self.replica[key] = version

    # --- the end -----------------------------------------------------------------------------------------------------

    def finish(self) -> None:
        """Everything becomes visible and is delivered, and the chunk is published."""
        self.drain()
        for writer in range(WRITERS):
            self.commit(writer)
            self.become_visible(writer)
        self.drain()
        while self.chunks == 0 or self.stage != "idle":
            self.mark()
            self.drain()
            self.read()

    def drain(self) -> None:
        while self.delivered < len(self.log):
            self.deliver()

    def existing(self, rows: dict[bytes, Version]) -> Rows:
        return {key: version.number for key, version in rows.items() if version.exists}


def _ignored() -> None:
    """A mark that is not in memory any more."""
