"""A model of Postgres, of the reader's chunks and of a replica, for the visibility rule.

A transaction locks the rows it writes until it is visible; its commit record enters the log some time before that.
The reader delivers the log in order, reads chunks between marks, several of an event at a time, and may reconnect. The
replica applies what is published, in the order of the stream.

A row has a small value and a large one. A change of the small one alone brings no large one in the log, so its event is
partial; where consumers may not have the row yet, or may have no partial ones, it has no event, and the row is read
again by its key.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Literal, NamedTuple

from cdc.rereads import RereadQueue, Taken
from cdc.snapshot.visibility import Deliveries, Snapshot, Verdict, Window
from transforms.position import LSN

KEYS = (b"a", b"b", b"c")
WRITERS = 3
CHUNKS = 2
EVENT = "row.v1"
FIRST_XID = (1 << 32) - 4  # so that ids wrap around while the model runs

RUN = "run"

Judge = Callable[[Deliveries, Window, Snapshot], Verdict]
Do = Literal[
    "write", "change", "move", "truncate", "log", "see", "deliver", "drain", "mark", "read", "note", "reconnect"
]


class Version(NamedTuple):
    """A row's state: versions rise with each write, also when it deletes."""

    number: int
    exists: bool
    large: int | None = None
    """The version that its large value is of; None: it is not known."""


Rows = dict[bytes, Version]


class Written(NamedTuple):
    """A row as a transaction left it at some time, and what the log tells of it."""

    key: bytes
    version: Version
    tells: Literal["all", "small", "small under a new key"]


@dataclass
class Transaction:
    xid: int
    written: list[Written] = field(default_factory=list)
    truncates: bool = False
    logged: bool = False

    @property
    def rows(self) -> Rows:
        return {written.key: written.version for written in self.written}


@dataclass
class Chunk:
    """One of the chunks that may be in hand at a time, each of all rows; or of those that are to be read again."""

    reads_again: bool = False
    taken: Taken | None = None
    keys: frozenset[bytes] = frozenset(KEYS)
    stage: Literal["idle", "low sent", "low came", "read", "high sent"] = "idle"
    window: Window | None = None
    read: tuple[Snapshot, Rows] | None = None
    published: int = 0


class WentBack(AssertionError):
    """A replica's row became older than it was."""


@dataclass
class Model:
    """Source, log, reader and replica."""

    judge: Judge
    reads_resent_again: bool = True
    """Whether a partial change that the stream may have is read again after a reconnect."""
    reads_always_again: bool = False
    """Whether no event is partial, for every such change is read again."""
    tells_others_what_was_found: bool = True
    """Whether a chunk leaves out what was meanwhile found by one that saw more."""
    visible: Rows = field(default_factory=lambda: dict.fromkeys(KEYS, Version(1, True, 1)))
    replica: Rows = field(default_factory=dict)
    open: list[Transaction | None] = field(default_factory=lambda: [None] * WRITERS)
    log: list[Transaction | Callable[[], None]] = field(default_factory=list)
    delivered: int = 0
    applied: int = 0
    version: int = 1
    next_xid: int = FIRST_XID
    run_is_stored: bool = False
    """Whether a chunk's rows count as published after a reconnect."""

    def __post_init__(self) -> None:
        self._connect()

    def _connect(self) -> None:
        self.deliveries, self.rereads, self.ended_at = Deliveries(self.snapshot()), RereadQueue(), self.applied
        self.chunks = [*(Chunk() for _ in range(CHUNKS)), Chunk(reads_again=True, keys=frozenset())]

    # --- the source --------------------------------------------------------------------------------------------------

    def snapshot(self) -> Snapshot:
        running = frozenset(each.xid for each in self.open if each)
        return Snapshot(min([self.next_xid, *running]), self.next_xid, running)

    def write(self, writer: int, key: bytes, *, exists: bool) -> None:
        if transaction := self._locking(writer, key):
            self._write(transaction, key, "all", exists=exists, large=self.version + 1 if exists else None)

    def change(self, writer: int, key: bytes) -> None:
        """Change a row's small value."""
        if (transaction := self._locking(writer, key)) and (row := self._row(transaction, key)).exists:
            self._write(transaction, key, "small", exists=True, large=row.large)

    def move(self, writer: int, key: bytes, to: bytes) -> None:
        """Change a row's key, and its small value."""
        if (
            self._locking(writer, key)
            and (transaction := self._locking(writer, to))
            and (row := self._row(transaction, key)).exists
            and not self._row(transaction, to).exists
        ):
            self._write(transaction, key, "all", exists=False, large=None)
            self._write(transaction, to, "small under a new key", exists=True, large=row.large)

    def _write(
        self,
        transaction: Transaction,
        key: bytes,
        tells: Literal["all", "small", "small under a new key"],
        *,
        exists: bool,
        large: int | None,
    ) -> None:
        self.version += 1
        transaction.written.append(Written(key, Version(self.version, exists, large), tells))

    def _row(self, transaction: Transaction, key: bytes) -> Version:
        return transaction.rows.get(key, self.visible[key])

    def _locking(self, writer: int, key: bytes) -> Transaction | None:
        others = [each for number, each in enumerate(self.open) if each and number != writer]
        return None if any(key in other.rows for other in others) else self._writing(writer)

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
        known = self.applied >= self.delivered  # the stream has it already and refuses it
        for key, version, tells in entry.written:
            if tells == "all":
                self.deliveries.touched(EVENT, key)
            else:
                resent = self.reads_resent_again and self.delivered <= self.ended_at
                if resent:
                    self.deliveries.touched(EVENT, key, whole=False)
                moved = tells == "small under a new key"
                if self.reads_always_again or resent or moved or self.rereads.holds(EVENT, key):
                    self.rereads.add(EVENT, {key}, LSN(self.delivered - 1))
                    continue
                self.deliveries.touched(EVENT, key, whole=False)
            if not known:
                self.applied = self.delivered
                self.apply(key, version, partial=tells == "small")

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
        if chunk.reads_again:
            chunk.taken = chunk.taken or self.rereads.take(EVENT, len(KEYS))
            chunk.keys = chunk.taken.keys if chunk.taken else frozenset()
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
        if verdict.unseen:
            return
        chunk.published += 1
        found = {key: version for key, version in rows.items() if key in chunk.keys and version.exists}
        unread = frozenset[bytes]()
        if chunk.reads_again and chunk.published % 2 and len(found) > 1:  # no more than one row fits
            first = min(found)
            found, unread = {first: found[first]}, chunk.keys - {first}
        for key, version in found.items():
            if verdict.keeps(key):
                self.applied = self.delivered
                self.apply(key, version)
        kept = [key for key in found if verdict.keeps(key)]
        if self.tells_others_what_was_found:
            self.deliveries.found(EVENT, kept, snapshot, None)
        incomplete = verdict.incomplete.intersection(found)
        if chunk.reads_again:
            notes = self.rereads.done(EVENT, chunk.taken, incomplete | unread) if chunk.taken else []
            chunk.taken = None
            self.run_is_stored |= bool(notes)
            return
        if incomplete:
            self.rereads.add(EVENT, set(incomplete), LSN(self.delivered - 1))
        if not self.rereads.hold_note(EVENT, RUN, "done"):
            self.run_is_stored = True

    def note_snapshot(self) -> None:
        self.deliveries.seen(self.snapshot())

    def reconnect(self, resent: int) -> None:
        end = self.delivered if self.rereads.held_end is None else self.rereads.held_end
        self.delivered = max(0, end - resent)
        # Marks of the earlier connection are in the log still, but their rows are lost.
        self.log = [entry if isinstance(entry, Transaction) else _ignored for entry in self.log]
        self._connect()

    def apply(self, key: bytes, version: Version, *, partial: bool = False) -> None:
        before = self.replica.get(key)
        if before and version.number < before.number:
            raise WentBack(f"{key!r} went from version {before.number} to {version.number}")
        self.replica[key] = version._replace(large=before and before.large) if partial else version

    # --- the end -----------------------------------------------------------------------------------------------------

    def finish(self) -> None:
        """Everything becomes visible and is delivered, and a chunk is published, and what is to be read again."""
        self.drain()
        for writer in range(WRITERS):
            self.commit(writer)
            self.become_visible(writer)
        self.drain()
        for number, chunk in enumerate(self.chunks[:CHUNKS]):
            if not self.run_is_stored or chunk.stage != "idle":
                self._work(number)
        while self.rereads.events:
            self._work(CHUNKS)

    def _work(self, number: int) -> None:
        """Have a chunk published, the one in hand or a new one."""
        chunk = self.chunks[number]
        published = chunk.published
        while chunk.published == published or chunk.stage != "idle":
            self.mark(number)
            self.drain()
            self.read(number)

    def drain(self) -> None:
        while self.delivered < len(self.log):
            self.deliver()

    def existing(self, rows: Rows) -> Rows:
        return {key: version for key, version in rows.items() if version.exists}


def _ignored() -> None:
    """A mark that is not in memory any more."""
