"""A batch's changes, applied: each round of a table is one DELETE and an upsert for each set of fields.

A first attempt applies the whole batch as it is. When a row is refused, the batch is rolled back and applied again
carefully, with savepoints: what is refused is halved until single rows are left, which are parked.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence, Set
from functools import partial

from sinks.compaction import Change, Group, Step, TypeChanges
from sinks.dead_events import BLOCKED, ROW_MISSING, ParkingLot
from sinks.errors import DataRefused
from sinks.postgres import Database
from sinks.rebuild.filling import Rebuild, takes_rows
from sinks.replica import Replica
from sinks.sweep import apply_mark, note_seen
from sinks.whole_rows import amend, remove, remove_all, truncate, write
from transforms.event import Mark

Operation = Callable[[Sequence[Change]], None]


class Applier:
    """Applies the steps of one batch in the caller's transaction, to replicas and to what is filled beside them."""

    def __init__(
        self,
        database: Database,
        replicas: Mapping[str, Replica],
        rebuilds: Mapping[str, Rebuild],
        parking: ParkingLot,
        shadow_parking: ParkingLot,
        *,
        needless: Set[str] = frozenset(),
        careful: bool,
    ) -> None:
        """`needless`: snapshot runs that nothing is to be done about."""
        self._database = database
        self._replicas = replicas
        self._rebuilds = rebuilds
        self._needless = needless
        self._live = _TableApplier(database, parking, careful=careful)
        self._shadow = _TableApplier(database, shadow_parking, careful=careful)

    def apply(self, steps: Sequence[Step]) -> None:
        """Raises DataRefused unless careful, TooManyParked, and what else the target says.

        Of tables that are being rebuilt also RebuildFailed and LiveTableRefuses.
        """
        for step in steps:
            if isinstance(step, Mark):
                self._mark(str(step.data["event"]), step)
            else:
                for label, changes in step.items():
                    self._apply_type(label, changes)

    def _mark(self, label: str, mark: Mark) -> None:
        replica, rebuild = self._replicas[label], self._rebuilds.get(label)
        if str(mark.data.get("run")) in self._needless:
            return
        if rebuild is None or rebuild.live_takes_mark(mark):
            apply_mark(self._database, replica, mark)
        if rebuild is not None:
            with rebuild.on_shadow():
                if rebuild.empties_shadow(mark):
                    truncate(self._database, rebuild.shadow)
                apply_mark(self._database, rebuild.shadow, mark)

    def _apply_type(self, label: str, changes: TypeChanges) -> None:
        replica, rebuild = self._replicas[label], self._rebuilds.get(label)
        if rebuild is None:
            if takes_rows(replica, own=changes.own):
                self._live.apply(replica, changes)
            return
        if rebuild.live_takes_rows(replica, own=changes.own):
            with rebuild.on_live():
                self._live.apply(replica, changes)
        if rebuild.shadow_takes_rows:
            with rebuild.on_shadow():
                self._shadow.apply(rebuild.shadow, changes)
            rebuild.written += changes.upserts


class _TableApplier:
    """Applies what happened to one table's rows."""

    def __init__(self, database: Database, parking: ParkingLot, *, careful: bool) -> None:
        self._database = database
        self._parking = parking
        self._careful = careful

    def apply(self, replica: Replica, changes: TypeChanges) -> None:
        """See `Applier.apply`."""
        parking, label = self._parking, replica.label
        if changes.truncate:
            remove_all(self._database, replica)
            parking.heal_all(label)
        for round_ in changes.rounds:
            if round_.deletes:
                parking.heal(label, round_.deletes)
                self._attempt(label, partial(remove, self._database, replica), round_.deletes)
            for group in round_.upserts:
                if group.partial:
                    self._apply_partial(replica, group)
                else:
                    parking.heal(label, group.changes)
                    self._attempt(label, partial(write, self._database, replica), group.changes)
                self._note_seen(replica, group.changes)

    def _apply_partial(self, replica: Replica, group: Group) -> None:
        changes: Sequence[Change] = group.changes
        blocked = self._parking.blocked(replica.label, changes)
        if blocked:  # their rows are older than what the missing fields stand for
            for change in changes:
                if change.key in blocked:
                    self._parking.park(replica.label, change, BLOCKED)
            changes = [change for change in changes if change.key not in blocked]
        if changes:
            missing: list[Change] = []
            self._attempt(replica.label, lambda part_: missing.extend(amend(self._database, replica, part_)), changes)
            if replica.filled:  # else the snapshot brings the row
                for change in missing:
                    self._parking.park(replica.label, change, ROW_MISSING)

    def _attempt(self, label: str, operation: Operation, changes: Sequence[Change]) -> None:
        if not self._careful:
            operation(changes)
            self._parking.succeeded()
            return
        self._database.execute(b"SAVEPOINT attempt")
        try:
            operation(changes)
        except DataRefused as error:
            self._database.execute(b"ROLLBACK TO SAVEPOINT attempt")
            if middle := len(changes) // 2:
                self._attempt(label, operation, changes[:middle])
                self._attempt(label, operation, changes[middle:])
            else:
                self._parking.park(label, changes[0], error.refusal)
        else:
            self._parking.succeeded()
        self._database.execute(b"RELEASE SAVEPOINT attempt")

    def _note_seen(self, replica: Replica, changes: Sequence[Change]) -> None:
        """Parked rows too: the source has them, so the replica's older ones stay."""
        if replica.unseen_table is None:
            return
        if not self._careful:
            note_seen(self._database, replica, changes)
            return
        self._database.execute(b"SAVEPOINT noting")
        try:
            note_seen(self._database, replica, changes)
        except DataRefused:
            self._database.execute(b"ROLLBACK TO SAVEPOINT noting")
            if middle := len(changes) // 2:
                self._note_seen(replica, changes[:middle])
                self._note_seen(replica, changes[middle:])
        self._database.execute(b"RELEASE SAVEPOINT noting")


def apply_one(database: Database, replica: Replica, change: Change) -> bool:
    """Apply a single change; False: a partial one whose row does not exist."""
    if change.state is None:
        remove(database, replica, [change])
    elif change.partial:
        return not amend(database, replica, [change])
    else:
        write(database, replica, [change])
    return True
