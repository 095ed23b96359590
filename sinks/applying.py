"""One batch, one transaction: the rows, the parked events and the checkpoint change together or not at all."""

from __future__ import annotations

import copy
import logging
from collections.abc import Callable, Mapping, Sequence

from sinks.apply import Applier
from sinks.checkpoint import Checkpoints
from sinks.compaction import Step
from sinks.config import SinkConfig
from sinks.dead_events import ParkingLot
from sinks.errors import DataRefused, SchemaBehind, StreamsReplaced
from sinks.feed import Batch
from sinks.postgres import Database
from sinks.session import Session
from transforms.event import Mark
from transforms.position import LSN, Position
from transforms.schema import SchemaDocument

log = logging.getLogger(__name__)

Documents = Callable[[Sequence[str]], Mapping[str, SchemaDocument]]


class Applying:
    """Applies batches of one sink."""

    def __init__(self, config: SinkConfig, database: Database, checkpoints: Checkpoints) -> None:
        self._sink = config.name
        self._database = database
        self._checkpoints = checkpoints
        self._parking = ParkingLot(database, config.pipeline.name, config.name)

    def apply(
        self, session: Session, batch: Batch, end: Position, applied_lsn: LSN | None, documents: Documents
    ) -> int:
        """Apply a batch and move its stream's checkpoint to its `end`; returns how many events were parked.

        Raises CheckpointMoved, TooManyParked, SchemaBehind, StreamsReplaced (which asks for a new
        session, when `documents` has a newer revision) and what the target says; then nothing was changed.
        """
        stream, steps = batch.stream, batch.steps
        _require_schema(session, steps, documents)
        try:
            self._transact(session, stream, steps, end, applied_lsn, careful=False)
        except DataRefused as error:
            log.warning("stream %s: %s; looking for it", stream, error)
            self._transact(session, stream, steps, end, applied_lsn, careful=True)
        if self._parking.parked:
            log.warning("parked %d events of %s: `cdc-sink dead %s list`", self._parking.parked, stream, self._sink)
        return self._parking.parked

    def _transact(
        self,
        session: Session,
        stream: str,
        steps: list[Step],
        position: Position,
        applied_lsn: LSN | None,
        *,
        careful: bool,
    ) -> None:
        checkpoint = session.checkpoints[stream]
        replicas = {label: copy.copy(replica) for label, replica in session.replicas.items()}  # a rollback forgets them
        with self._database.transaction(check_at_once=careful):
            self._parking.begin(stream, occupied=self._checkpoints.lock(checkpoint))
            Applier(self._database, replicas, self._parking, careful=careful).apply(steps)
            advanced = self._checkpoints.advance(checkpoint, position, applied_lsn)
        session.checkpoints[stream], session.replicas = advanced, replicas
        self._parking.committed()


def _require_schema(session: Session, steps: list[Step], documents: Documents) -> None:
    for segment in steps:
        if isinstance(segment, Mark):
            continue
        for label, changes in segment.items():
            newest = max((group.rev for round_ in changes.rounds for group in round_.upserts), default=1)
            if newest > len(session.replicas[label].document.revisions):
                stored = documents([label]).get(label)
                if stored is None or len(stored.revisions) < newest:
                    raise SchemaBehind(f"revision {newest} of {label} is not among the schema documents")
                raise StreamsReplaced(f"event {label} has a new revision")
