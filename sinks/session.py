"""What a worker must know before it may apply anything: the pipeline's state, its own lease, tables that fit.

A session is opened at the start and after every failure, so that memory never outlives what it was read from.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass, field

from sinks.checkpoint import Checkpoint, Checkpoints
from sinks.children.claiming import claim_whole
from sinks.children.shape import keep_apart
from sinks.config import SinkConfig
from sinks.control import Control
from sinks.errors import RebuildMoved, SinkError, StreamBegunAgain, StreamEmptied, StreamHole, TableReplaced
from sinks.ownership import (
    forget_left,
    forget_older_runs,
    not_registered,
    replaced,
    snapshot_requested,
)
from sinks.postgres import Database
from sinks.privileges import OWN_TABLES, require
from sinks.rebuild.filling import Rebuild
from sinks.rebuild.keeping import Rebuilding
from sinks.replica import Replica
from sinks.stream import Meta, StreamEnds, StreamReader
from sinks.unknown_events import Wait
from transforms.keys import Keys
from transforms.position import START, Position
from transforms.schema import SchemaDocument

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Prospect:
    """What Redis says before the lease is asked for."""

    meta: Meta
    documents: dict[str, SchemaDocument]
    streams: dict[str, dict[bytes, str]]
    """Stream -> the events in it that this sink maps (as in entries -> as text)."""
    ends: dict[str, StreamEnds]


@dataclass(slots=True)
class Session:
    """The right to apply, and all that is needed for it."""

    meta: Meta
    streams: dict[str, dict[bytes, str]]
    checkpoints: dict[str, Checkpoint]
    replicas: dict[str, Replica]
    rebuilds: dict[str, Rebuild] = field(default_factory=dict)
    """Event -> what is filled beside its replica."""
    begun: list[str] = field(default_factory=list)
    """Streams that this session has begun, perhaps again."""
    left: list[str] = field(default_factory=list)
    """Streams that this sink read before and does not any more."""
    seen: dict[str, Position] = field(default_factory=dict)
    """Stream -> the last entry read, applied or not: only what comes behind it is news."""
    at_end: dict[str, bool] = field(default_factory=dict)
    """Stream -> whether everything in it has been applied."""
    may_have_parked: bool = True
    """Whether there may be parked events of this sink: nobody else parks any while the session lasts."""
    behind: set[str] = field(default_factory=set)
    """Streams with more than fitted into the last batch."""

    @property
    def at_end_of(self) -> set[str]:
        """Streams of which everything has been applied."""
        return {stream for stream in self.checkpoints if self.at_end.get(stream)}

    @property
    def asked_runs(self) -> set[str | None]:
        """The snapshot runs that the reader was asked for by this sink, and that have not ended here."""
        replicas, rebuilds = self.replicas.values(), self.rebuilds.values()
        return {replica.asked_run for replica in replicas} | {rebuild.record.run for rebuild in rebuilds}

    def next_behind(self, stream: str) -> str:
        """Of the streams that are behind, which this one is, the one after it."""
        streams = list(self.checkpoints)
        place = streams.index(stream) + 1
        return next(each for each in streams[place:] + streams[:place] if each in self.behind)


class Opener:
    """Opens sessions of one sink."""

    def __init__(
        self, config: SinkConfig, database: Database, checkpoints: Checkpoints, rebuilding: Rebuilding
    ) -> None:
        self._config = config
        self._keys = Keys(config.pipeline.name)
        self._database = database
        self._checkpoints = checkpoints
        self._rebuilding = rebuilding
        self._held: list[str] = []
        """Streams in which this sink had no place before the last look."""

    def look(self, control: Control, reader: StreamReader) -> Prospect | Wait:
        """What Redis says, or what must be waited for."""
        if (meta := reader.meta()) is None:
            return Wait(
                f"pipeline {self._keys.pipeline} does not exist in Redis yet",
                "Start the reader, `cdc run`, which makes it; or correct pipeline.name or transport.url.",
            )
        documents = keep_apart(self._config, control.documents(self._config.tables))
        if missing := [label for label in self._config.tables if label not in documents]:
            return control.missing(missing, self._config.tables)
        streams: dict[str, dict[bytes, str]] = {}
        for label, document in documents.items():
            stream = self._keys.stream(document.stream, meta.epoch).removeprefix(f"{self._keys.pipeline}:")
            streams.setdefault(stream, {})[label.encode()] = label
        for stream in streams:
            if reader.hold(stream):
                self._held.append(stream)
        ends = {stream: reader.ends(stream) for stream in streams}
        return Prospect(meta, documents, streams, ends)

    def open(self, prospect: Prospect) -> Session | None:
        """Take the lease, make the tables fit, start streams that are new; None: another worker is alive.

        Raises AccessDenied, TableForeign, TableMisfit, StreamEmptied and what the target says: nothing was written.
        Raises RebuildMoved when a rebuild cannot go on, and a session without it can be opened.
        """
        pipeline, sink = self._config.pipeline.name, self._config.name
        with self._database.transaction():
            require(self._database, OWN_TABLES, make=True)  # a snapshot run over rows makes a table of its own
            checkpoints = self._checkpoints.take_lease()
            if checkpoints is None:
                return None
            forget_older_runs(self._database, pipeline, sink)
            session = Session(prospect.meta, prospect.streams, {}, {})
            records, failed = self._rebuilding.in_hand(), False
            for stream, labels in prospect.streams.items():
                checkpoint, ends = checkpoints.get(stream), prospect.ends[stream]
                begins = checkpoint is None or checkpoint.incarnation != prospect.meta.incarnation
                if checkpoint is None or begins:
                    position = _first_position(stream, ends, list(labels.values()))
                    checkpoint = self._checkpoints.begin(stream, prospect.meta.incarnation, position)
                    session.begun.append(stream)
                session.checkpoints[stream] = checkpoint
                for label in labels.values():
                    document, record = prospect.documents[label], records.get(label)
                    session.replicas[label] = claim_whole(
                        self._database, self._config, label, document,
                        begins=begins, complete=ends.complete, is_rebuilt=record is not None,
                    )  # fmt: skip
                    if record is not None:
                        rebuild = self._rebuilding.prepare(record, document, stream, begins=begins)
                        if rebuild is not None:
                            session.rebuilds[label] = rebuild
                        failed = failed or rebuild is None
            session.left = self._checkpoints.forget_others(list(session.checkpoints))
            kept = [*session.replicas.values(), *(rebuild.shadow for rebuild in session.rebuilds.values())]
            forget_left(self._database, pipeline, sink, [table for replica in kept for table in replica.all_tables])
        if failed:  # and the table that it was to replace may not fit
            raise RebuildMoved("a rebuild cannot be begun")
        log.info("sink %s of pipeline %s works on %s", sink, pipeline, _listed(list(session.checkpoints)))
        if session.begun:
            log.info(
                "begins at %s", _listed([f"{each} {session.checkpoints[each].position}" for each in session.begun])
            )
        return session

    def tell_places(self, session: Session, reader: StreamReader) -> None:
        """Have the reader keep what this session needs, and no more, before anything of it may be trimmed."""
        self._held = []
        for stream in session.begun:
            reader.move_group(stream, session.checkpoints[stream].position)
        for stream in session.left:
            reader.leave(stream)

    def let_go(self, reader: StreamReader) -> None:
        """No session came of the look: what it held is not needed."""
        held, self._held = self._held, []
        try:
            for stream in held:
                reader.leave(stream)
        except SinkError as error:
            log.debug("what was held is not let go: %s", error)

    def begin_again(
        self, checkpoint: Checkpoint, hole: StreamHole, reader: StreamReader, *, lost: bool
    ) -> StreamBegunAgain:
        """After a hole that a snapshot mends: have the next session begin the stream as if it had never been read.

        That is so when the reader trimmed past this sink, when nothing of the stream has been applied yet, and when
        Redis had `lost` the checkpoint's entry with the stream's end: rows that were found by a query are published
        again under other ids. Raises the hole where entries were removed in another way: a person must know.
        """
        if checkpoint.position == START:
            why = "before this sink has read any of them"
        elif lost:
            why = "when Redis lost the end of the stream"
        elif reader.was_passed(checkpoint.stream):
            why = "because this sink was more than transport.max_backlog_bytes behind"
        else:
            raise hole
        with self._database.transaction():
            self._checkpoints.forget(checkpoint)
        return StreamBegunAgain(f"stream {checkpoint.stream}: entries were removed {why}; a snapshot brings their rows")

    def request_snapshots(self, session: Session, control: Control) -> None:
        """Ask the reader to fill the tables that their streams alone do not fill. Perhaps twice, never not at all."""
        self._rebuilding.request_snapshots(session.rebuilds, control)
        self.request_wanted(session, control)

    def request_lost(self, session: Session, control: Control) -> None:
        """Ask again for what the reader was asked for and does not know of: Redis may have lost the request.

        Only where all of the stream has been applied: the reader forgets a run as soon as the next one of its event
        begins, and two sinks far behind that asked again for theirs would have it make runs for ever.
        """
        at_end = {label for stream in session.at_end_of for label in session.streams[stream].values()}
        rebuilds = {label: rebuild for label, rebuild in session.rebuilds.items() if label in at_end}
        self._rebuilding.request_lost(rebuilds, control)
        for label in at_end:
            replica = session.replicas[label]
            if replica.asked_run is not None and not control.is_on_its_way(replica.asked_run):
                log.warning("the snapshot of %s that the reader was asked for is not on its way", label)
                replica.wants_snapshot = True
        self.request_wanted(session, control)

    def request_wanted(self, session: Session, control: Control) -> None:
        """Ask the reader to fill the tables that want it."""
        wanting = [replica for replica in session.replicas.values() if replica.wants_snapshot]
        if not wanting:
            return
        labels = [replica.label for replica in wanting]
        runs = control.request_snapshot(labels)
        with self._database.transaction():
            for replica, run in zip(wanting, runs, strict=True):
                snapshot_requested(self._database, str(replica.table), run)
        for replica, run in zip(wanting, runs, strict=True):
            replica.wants_snapshot, replica.asked_run = False, run
        log.info("asked the reader for a snapshot of %s", ", ".join(labels))

    def require_same_tables(self, session: Session) -> None:
        """Raises TableReplaced, for a new session to be opened, which has the table filled, or leaves it alone."""
        tables = [table for replica in session.replicas.values() for table in replica.all_tables]
        with self._database.transaction():
            given_away = not_registered(self._database, self._config.pipeline.name, self._config.name, tables)
            others = replaced(self._database, tables)
        if given_away:
            raise TableReplaced(f"not registered to this sink any more: {_listed(given_away)}")
        if others:
            raise TableReplaced(f"another table has taken the name {_listed(others)}")


def _listed(names: Sequence[str], most: int = 8) -> str:
    more = f" and {len(names) - most} more" if len(names) > most else ""
    return ", ".join(names[:most]) + more


def _first_position(stream: str, ends: StreamEnds, labels: Sequence[str]) -> Position:
    """Where a stream that this sink has not read before is begun.

    One from which entries were removed is begun at its newest entry; a snapshot brings what came before.
    """
    if ends.complete:
        return START
    if ends.last is None or ends.last < ends.last_deleted:
        raise StreamEmptied(f"the newest entries of stream {stream} were removed: a snapshot must come first", labels)
    return ends.last
