"""One batch, one transaction: the rows, the parked events and the checkpoint change together or not at all."""

from __future__ import annotations

import copy
import logging
from collections.abc import Callable, Mapping, Sequence

from sinks.apply import Applier
from sinks.checkpoint import Checkpoints
from sinks.compaction import Group, Step
from sinks.config import SinkConfig
from sinks.dead_events import ParkingLot
from sinks.errors import (
    DataRefused,
    LiveTableRefuses,
    RebuildFailed,
    RebuildMoved,
    RefusedAtCommit,
    SchemaBehind,
    StreamsReplaced,
)
from sinks.feed import Batch
from sinks.known_runs import KnownRun, foreign_marks, marks_of_runs, run_of
from sinks.ownership import want_snapshot
from sinks.postgres import Database
from sinks.rebuild.keeping import Rebuilding
from sinks.session import Session
from transforms import wire
from transforms.errors import MalformedEntry
from transforms.event import Mark
from transforms.failpoints import Failpoint, reached
from transforms.position import LSN, Position
from transforms.schema import SchemaDocument

log = logging.getLogger(__name__)

Documents = Callable[[Sequence[str]], Mapping[str, SchemaDocument]]
KnownRuns = Callable[[Sequence[str]], Mapping[str, KnownRun]]


class Applying:
    """Applies batches of one sink."""

    def __init__(
        self, config: SinkConfig, database: Database, checkpoints: Checkpoints, rebuilding: Rebuilding
    ) -> None:
        self._sink = config.name
        self._database = database
        self._checkpoints = checkpoints
        self._rebuilding = rebuilding
        self._parking, self._shadow_parking = (
            ParkingLot(database, config.pipeline.name, config.name, config.max_parked_in_a_row) for _ in range(2)
        )

    def apply(
        self,
        session: Session,
        batch: Batch,
        end: Position,
        applied_lsn: LSN | None,
        documents: Documents,
        known_runs: KnownRuns,
    ) -> int:
        """Apply a batch and move its stream's checkpoint to its `end`; returns how many events were parked.

        A mark of a run that is not among `known_runs` begins nothing: its replica wants a snapshot of its own instead.
        Raises CheckpointMoved, TooManyParked, RefusedAtCommit, SchemaBehind, StreamsReplaced and RebuildMoved (which
        ask for a new session, when `documents` has a newer revision, or a rebuild has ended) and what the target says;
        then nothing was changed.
        """
        stream, steps = batch.stream, batch.steps
        _require_schema(session, steps, documents)
        if marks := marks_of_runs(steps):
            own = session.asked_runs | self._rebuilding.needless_runs
            foreign = foreign_marks(marks, known_runs([run_of(mark) for mark in marks]), own)
            steps = [step for step in steps if step not in foreign]
            self._distrust(session, stream, foreign)
        try:
            try:
                self._transact(session, stream, steps, end, applied_lsn)
            except RefusedAtCommit as error:
                self._transact(session, stream, steps, end, applied_lsn, refused=error)
            except DataRefused as error:
                try:
                    self._transact(session, stream, steps, end, applied_lsn, refused=error)
                except RefusedAtCommit as later:
                    self._transact(session, stream, steps, end, applied_lsn, refused=later)
        except RebuildFailed as error:
            self._rebuilding.fail(session.rebuilds[error.event], str(error))
            raise RebuildMoved(f"the rebuild of {error.event} has failed") from error
        except LiveTableRefuses as error:
            self._rebuilding.freeze(session.rebuilds[error.event], str(error))
            raise RebuildMoved(f"the table of {error.event} stays as it is until it is rebuilt") from error
        parked = self._parking.parked + self._shadow_parking.parked
        if parked:
            log.warning("parked %d events of %s: `cdc-sink dead %s list`", parked, stream, self._sink)
        return parked

    def _distrust(self, session: Session, stream: str, foreign: Sequence[Mark]) -> None:
        """Nothing is swept for these. Should one be the reader's all the same, a snapshot does what it would have."""
        for mark in foreign:
            label = str(mark.data["event"])
            log.error(
                "entry %s of stream %s is the %s of a snapshot run of %s that the reader does not know there: ignored"
                " (it is somebody else's, or of long ago; a snapshot for this sink brings what it would have)",
                mark.position,
                stream,
                mark.name,
                label,
            )
            replica = session.replicas[label]
            comes = replica.asked_run is not None and replica.run is None  # one that was asked for, behind this mark
            if mark.name == wire.RUN_BEGIN and not comes:
                with self._database.transaction():
                    want_snapshot(self._database, str(replica.table))
                replica.wants_snapshot = True

    def _transact(
        self,
        session: Session,
        stream: str,
        steps: list[Step],
        position: Position,
        applied_lsn: LSN | None,
        *,
        refused: DataRefused | None = None,
    ) -> None:
        """`refused`: what became of it before, so that the row is looked for now.

        Deferred constraints are checked by each statement only where that is the way to find it: rows of two tables may
        refer to each other in an order that only the whole batch makes good.
        """
        careful = refused is not None
        checkpoint = session.checkpoints[stream]
        replicas = {label: copy.copy(replica) for label, replica in session.replicas.items()}  # a rollback forgets them
        rebuilds = {label: rebuild.copied() for label, rebuild in session.rebuilds.items()}
        touched = [rebuild for label, rebuild in rebuilds.items() if any(_concerns(step, label) for step in steps)]
        lots = (self._parking, self._shadow_parking)
        with self._database.transaction(check_at_once=isinstance(refused, RefusedAtCommit)):
            if careful or session.may_have_parked:
                session.may_have_parked = self._checkpoints.lock(checkpoint)
            else:
                self._checkpoints.lock_with_next(checkpoint)
            reached(Failpoint.CHECKPOINT_LOCKED)
            if careful:
                log.warning("stream %s: %s; looking for it", stream, refused)
            for lot in lots:
                lot.begin(stream, occupied=session.may_have_parked)
            self._rebuilding.hold(touched)
            needless = self._rebuilding.needless_runs
            Applier(self._database, replicas, rebuilds, *lots, needless=needless, careful=careful).apply(steps)
            self._rebuilding.note(touched)
            reached(Failpoint.ROWS_APPLIED)
            advanced = self._checkpoints.advance(checkpoint, position, applied_lsn)
        reached(Failpoint.COMMIT_ANSWERED)
        session.checkpoints[stream], session.replicas, session.rebuilds = advanced, replicas, rebuilds
        for lot in lots:
            session.may_have_parked |= lot.parked > 0
            lot.committed()


def _concerns(step: Step, label: str) -> bool:
    return str(step.data["event"]) == label if isinstance(step, Mark) else label in step


def _require_schema(session: Session, steps: list[Step], documents: Documents) -> None:
    for segment in steps:
        if isinstance(segment, Mark):
            continue
        for label, changes in segment.items():
            for group in (group for round_ in changes.rounds for group in round_.upserts):
                _require_revision(session, label, group, documents)


def _require_revision(session: Session, label: str, group: Group, documents: Documents) -> None:
    document, entry = session.replicas[label].document, group.changes[0].entry_id.decode()
    if group.rev > len(document.revisions):
        stored = documents([label]).get(label)
        if stored is None or len(stored.revisions) < group.rev:
            raise SchemaBehind(
                f"revision {group.rev} of {label}, which entry {entry} names, is not among the schema documents"
            )
        raise StreamsReplaced(f"event {label} has a new revision")
    if (group.partial or group.quoted) and not document.names_all(group.partial, group.quoted):
        raise MalformedEntry(f"entry {entry} names fields that its event {label} does not have")
