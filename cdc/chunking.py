"""Rows found by a query, published in the order of the log: which of a chunk's rows may be published at its high mark.

The order of commit records in the log is not the order in which transactions become visible: a commit may be
streamed before a snapshot sees it (while it waits for a synchronous standby, or just between two instructions). So a
chunk is judged by the snapshot it was read with, not by the marks alone:

- a transaction that was delivered before the low mark and that the chunk's snapshot does not see: the chunk is
  discarded and read again, for the keys of that transaction are not known;
- one delivered between the marks and not seen: its keys leave the chunk, for its own events carry those rows;
- one that is seen: the chunk's rows already hold it.

The weaker rule, "drop what changed between the marks", lost rows when tried against a stalled synchronous standby.
"""

from __future__ import annotations

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


class Verdict(NamedTuple):
    """What may be done with a chunk: published without `dropped`, or read again because of `unseen`."""

    unseen: tuple[int, ...]
    """Transactions that the chunk should have seen; when there are any, nothing of it may be published."""
    dropped: frozenset[bytes]
    dropped_all: bool
    incomplete: frozenset[bytes]
    """Those of `dropped` whose own events were not whole rows: they must be read again by their key."""

    def keeps(self, key: bytes) -> bool:
        """Whether the row with this key is published."""
        return not self.dropped_all and key not in self.dropped


@dataclass(slots=True)
class _Touched:
    """What a transaction that was delivered between the marks did to the rows of the chunk's event."""

    keys: set[bytes] = field(default_factory=set)
    incomplete: set[bytes] = field(default_factory=set)
    all_keys: bool = False


class Window:
    """Transactions that were delivered, from delivery until a snapshot sees them; one chunk at a time.

    Those in progress at connect count as delivered before any mark until they are seen or delivered, for an earlier
    connection may have delivered them. Snapshots given to `seen` must be older than the one a chunk is read with.
    """

    def __init__(self, at_connect: Snapshot) -> None:
        self._newest = at_connect
        self._possibly_delivered = set(at_connect.in_progress)
        self._before: set[int] = set()  # as the log has them, 32 bits wide
        self._during: dict[int, _Touched | None] = {}
        """None: it has touched no row of the watched event."""
        self._current = 0
        self.event: str | None = None
        """The event whose chunk is between its marks: `touched` wants the keys of its rows."""

    @property
    def waits_for(self) -> int:
        """How many transactions no snapshot has seen yet."""
        return len(self._possibly_delivered) + len(self._before) + len(self._during)

    def delivered(self, xid: int) -> None:
        """A transaction with rows of mapped tables was delivered; `xid` is the log's."""
        self._current = xid
        if self._possibly_delivered:
            self._possibly_delivered.discard(self._newest.widen(xid))
        if self.event is None:
            self._before.add(xid)
        else:
            self._during.setdefault(xid, None)

    def touched(self, key: bytes, *, whole: bool = True) -> None:
        """The transaction delivered last changed this row of the watched event.

        A change that was not published as a whole row does not stand in for the chunk's row.
        """
        touched = self._touched()
        touched.keys.add(key)
        if not whole:
            touched.incomplete.add(key)

    def touched_all(self) -> None:
        """The transaction delivered last truncated the watched event's table."""
        self._touched().all_keys = True

    def _touched(self) -> _Touched:
        touched = self._during[self._current]
        if touched is None:
            touched = self._during[self._current] = _Touched()
        return touched

    def open(self, event: str) -> None:
        """The low mark of a chunk of `event` was delivered."""
        self.event = event
        self._before |= self._during.keys()
        self._during = {}

    def close(self, snapshot: Snapshot) -> Verdict:
        """The high mark of the chunk that was read with `snapshot` was delivered: judge it."""
        self.event = None
        unseen = {xid for xid in self._possibly_delivered if not snapshot.sees(xid)}
        unseen |= {wide for wide in map(snapshot.widen, self._before) if not snapshot.sees(wide)}
        dropped: set[bytes] = set()
        incomplete: set[bytes] = set()
        dropped_all = False
        for xid, touched in self._during.items():
            wide = snapshot.widen(xid)
            if touched is None or snapshot.sees(wide):
                continue
            dropped |= touched.keys
            incomplete |= touched.incomplete
            dropped_all |= touched.all_keys
        self._before |= self._during.keys()
        self._during = {}
        self.seen(snapshot)
        return Verdict(tuple(sorted(unseen)), frozenset(dropped), dropped_all, frozenset(incomplete))

    def seen(self, snapshot: Snapshot) -> None:
        """Forget what a snapshot sees. Ignored between the marks, where the chunk's own snapshot may be older."""
        if self.event is not None:
            return
        self._newest = snapshot
        self._possibly_delivered = {xid for xid in self._possibly_delivered if not snapshot.sees(xid)}
        self._before = {xid for xid in self._before if not snapshot.sees(snapshot.widen(xid))}
