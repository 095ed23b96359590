"""Rows found by a query, published in the order of the log: which of a chunk's rows may be published at its high mark.

The order of commit records in the log is not the order in which transactions become visible: a commit may be
streamed before a snapshot sees it (while it waits for a synchronous standby, or just between two instructions). So a
chunk is judged by the snapshot it was read with, not by the marks alone:

- a transaction that was delivered before the low mark and that the chunk's snapshot does not see: the chunk is
  discarded and read again, for the keys of that transaction are not known;
- one delivered between the marks and not seen: its keys leave the chunk, for its own events carry those rows. Where
  none of them is a whole row, as an update leaves an unchanged large value out, the row must be read again. A change
  without an event, since its row waits to be read again already, takes nothing out: all that was published is older
  than the chunk's row;
- one that is seen: the chunk's rows already hold it;
- a row that another query has found was published between the marks, and that query's snapshot sees what the chunk's
  does not: the row leaves the chunk, or it would go back. (A row read again by its key beside a snapshot of its table.)

The weaker rule, "drop what changed between the marks", lost rows when tried against a stalled synchronous standby.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple


class Snapshot(NamedTuple):
    """A `pg_current_snapshot()`: what a query saw. Transaction ids are 64 bits wide."""

    xmin: int
    xmax: int
    in_progress: frozenset[int]

    @classmethod
    def parse(cls, text: str) -> Snapshot:
        """Read `xmin:xmax:xip,...`. Raises ValueError on anything else."""
        xmin, xmax, listed = text.split(":")
        return cls(int(xmin), int(xmax), frozenset(int(xid) for xid in listed.split(",") if xid))

    def sees(self, xid: int) -> bool:
        """Whether the changes of a committed transaction are in this snapshot."""
        return xid < self.xmin or (xid < self.xmax and xid not in self.in_progress)

    def widen(self, xid: int) -> int:
        """The 64-bit id of a 32-bit one, which lies within two thousand million of this snapshot."""
        near = (self.xmax & ~0xFFFFFFFF) | xid
        if near - self.xmax > 0x7FFFFFFF and near > 0xFFFFFFFF:
            return near - (1 << 32)
        return near + (1 << 32) if self.xmax - near > 0x7FFFFFFF else near

    def sees_all_of(self, other: Snapshot) -> bool:
        """Whether every transaction that the other one sees is in this one too."""
        return other.xmax <= self.xmax and not any(map(other.sees, self.in_progress))


class Verdict(NamedTuple):
    """What may be done with a chunk: published without `dropped`, or read again because of `unseen`."""

    unseen: tuple[int, ...]
    """Transactions that the chunk should have seen; when there are any, nothing of it may be published."""
    dropped: frozenset[bytes]
    dropped_all: bool
    incomplete: frozenset[bytes]
    """Those of `dropped` that consumers do not all have by an event of their own: they must be read again by their key,
    for their own events are no whole row together, or went to one sink alone."""

    @property
    def keeps_all(self) -> bool:
        """Whether every row is published."""
        return not (self.dropped or self.dropped_all)

    def keeps(self, key: bytes) -> bool:
        """Whether the row with this key is published."""
        return not self.dropped_all and key not in self.dropped


@dataclass(slots=True)
class _Touched:
    """What a transaction that was delivered between the marks did to the rows of the chunk's event."""

    whole: set[bytes] = field(default_factory=set)
    """Keys of rows whose events tell all of the row, or that it is gone."""
    partial: set[bytes] = field(default_factory=set)
    all_keys: bool = False


class _Found(NamedTuple):
    """Rows that another query found."""

    keys: Collection[bytes]
    snapshot: Snapshot
    to: str | None
    """The one sink that they were published for."""


class Window:
    """One chunk between its marks: what may have been delivered before the low one, and what was delivered since."""

    __slots__ = ("_before", "_current", "_during", "_found", "_possibly_before")

    def __init__(self, before: frozenset[int], possibly_before: frozenset[int]) -> None:
        """Transactions that no snapshot had seen yet: those delivered, 32 bits wide, and those that may have been."""
        self._before = before
        self._possibly_before = set(possibly_before)
        self._current = 0
        self._during: dict[int, _Touched | None] = {}
        """None: it has touched no row of the chunk's event."""
        self._found: list[_Found] = []

    def delivered(self, xid: int, wide: int | None) -> None:
        """A transaction came after the low mark; `wide` is its whole id where an earlier connection may have had it."""
        self._current = xid
        self._during.setdefault(xid, None)
        if wide is not None:
            self._possibly_before.discard(wide)

    def touched(self, key: bytes, *, whole: bool) -> None:
        """The transaction delivered last changed this row of the chunk's event."""
        touched = self._touched()
        (touched.whole if whole else touched.partial).add(key)

    def touched_all(self) -> None:
        """The transaction delivered last truncated the table of the chunk's event."""
        self._touched().all_keys = True

    def found(self, keys: Collection[bytes], snapshot: Snapshot, to: str | None) -> None:
        """Rows of the chunk's event that another query found were published."""
        self._found.append(_Found(keys, snapshot, to))

    def _touched(self) -> _Touched:
        touched = self._during[self._current]
        if touched is None:
            touched = self._during[self._current] = _Touched()
        return touched

    def judge(self, snapshot: Snapshot, to: str | None = None) -> Verdict:
        """What may be published of the chunk that was read with `snapshot`, and is for all sinks or one."""
        unseen = {xid for xid in self._possibly_before if not snapshot.sees(xid)}
        unseen |= {wide for wide in map(snapshot.widen, self._before) if not snapshot.sees(wide)}
        whole: set[bytes] = set()
        partial: set[bytes] = set()
        dropped_all = False
        for xid, touched in self._during.items():
            if touched is None or snapshot.sees(snapshot.widen(xid)):
                continue
            whole |= touched.whole
            partial |= touched.partial
            dropped_all |= touched.all_keys
        for found in self._found:
            if snapshot.sees_all_of(found.snapshot):
                continue
            if found.to in (None, to):
                whole |= frozenset(found.keys)
            elif to is None:  # the others do not have them
                partial |= frozenset(found.keys)
        return Verdict(tuple(sorted(unseen)), frozenset(whole | partial), dropped_all, frozenset(partial - whole))


class Deliveries:
    """Transactions from their delivery until a snapshot sees them, and the chunks that are between their marks.

    Those in progress at connect count as delivered until they are seen or delivered, for an earlier connection may have
    delivered them.
    """

    def __init__(self, at_connect: Snapshot) -> None:
        self._newest = at_connect
        self._possibly_delivered = set(at_connect.in_progress)
        self._unseen: set[int] = set()  # as the log has them, 32 bits wide
        self._windows: list[Window] = []
        self.watched: dict[str, tuple[Window, ...]] = {}
        """Event -> the windows of its chunks: `touched` wants the keys of its rows."""

    @property
    def waits_for(self) -> int:
        """How many transactions no snapshot has seen yet."""
        return len(self._possibly_delivered) + len(self._unseen)

    def delivered(self, xid: int) -> None:
        """A transaction with rows of mapped tables was delivered; `xid` is the log's."""
        self._unseen.add(xid)
        wide = None
        if self._possibly_delivered:
            wide = self._newest.widen(xid)
            self._possibly_delivered.discard(wide)
        for window in self._windows:
            window.delivered(xid, wide)

    def delivered_all(self, xids: Sequence[int]) -> None:
        """The same for transactions none of whose rows is watched, in the order of the log."""
        if self._possibly_delivered or self._windows:
            for xid in xids:
                self.delivered(xid)
        else:
            self._unseen.update(xids)

    def touched(self, event: str, key: bytes, *, whole: bool = True) -> None:
        """The transaction delivered last changed this row, and its event was published or may have been.

        One that is not `whole` does not stand in for a chunk's row.
        """
        for window in self.watched.get(event, ()):
            window.touched(key, whole=whole)

    def touched_all(self, event: str) -> None:
        """The transaction delivered last truncated the event's table."""
        for window in self.watched.get(event, ()):
            window.touched_all()

    def found(self, event: str, keys: Collection[bytes], snapshot: Snapshot, to: str | None) -> None:
        """Rows that a query found with `snapshot` were published, for all sinks or one; its own window is closed."""
        for window in self.watched.get(event, ()):
            window.found(keys, snapshot, to)

    def open(self, event: str) -> Window:
        """The low mark of a chunk was delivered."""
        window = Window(frozenset(self._unseen), frozenset(self._possibly_delivered))
        self._windows.append(window)
        self.watched[event] = (*self.watched.get(event, ()), window)
        return window

    def close(self, event: str, window: Window, snapshot: Snapshot, to: str | None = None) -> Verdict:
        """The high mark of the chunk that was read with `snapshot` was delivered: judge it."""
        self.give_up(event, window)
        self.seen(snapshot)
        return window.judge(snapshot, to)

    def give_up(self, event: str, window: Window) -> None:
        """There will be no chunk."""
        self._windows.remove(window)
        others = tuple(other for other in self.watched.pop(event) if other is not window)
        if others:
            self.watched[event] = others

    def seen(self, snapshot: Snapshot) -> None:
        """Forget what a snapshot sees: so does every snapshot that is taken from now on.

        A window keeps what it began with, for its chunk may have been read before this snapshot was taken.
        """
        self._newest = snapshot
        self._possibly_delivered = {xid for xid in self._possibly_delivered if not snapshot.sees(xid)}
        self._unseen = {xid for xid in self._unseen if not snapshot.sees(snapshot.widen(xid))}
