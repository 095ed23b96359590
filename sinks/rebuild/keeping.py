"""The worker's part of a rebuild: making the shadow, asking the reader to fill it, swapping when it is filled.

The swap waits for two things, each for a moment at a time, while the stream goes on. For transactions that began
before the shadow was filled: in one that keeps its snapshot (REPEATABLE READ, pg_dump) the new table would lack rows.
And for the live table's exclusive lock, which makes new readers queue up: LOCK_WAIT bounds that.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Mapping, Sequence
from dataclasses import replace

from sinks.checkpoint import Checkpoint, Checkpoints
from sinks.children.claiming import load_children
from sinks.config import SinkConfig
from sinks.control import Control
from sinks.errors import CheckpointMoved, DataRefused, RebuildMoved, SinkError, TargetLocked
from sinks.ownership import claim
from sinks.postgres import Database, compose, identifier
from sinks.rebuild.filling import Rebuild
from sinks.rebuild.parts import Part, parts_of, shadow_shapes
from sinks.rebuild.record import Record, Records
from sinks.rebuild.shadow import carry, fits, make, require_free_way
from sinks.rebuild.swap import lock, older_transactions, swap
from sinks.replica import Examination, examine
from transforms.schema import SchemaDocument

LOCK_WAIT = "500ms"
"""For how long a try of the swap, and so every reader that comes after it, waits for the live table's lock."""
PAUSE_SECONDS = 3.0
"""Between two tries, and between two looks for what was asked for or called off."""

log = logging.getLogger(__name__)


class Rebuilding:
    """The rebuilds of one sink, for its worker's thread."""

    def __init__(self, config: SinkConfig, database: Database, checkpoints: Checkpoints) -> None:
        self._config = config
        self._database = database
        self._checkpoints = checkpoints
        self._records = Records(database, config.pipeline.name, config.name)
        self._looked_at = 0.0
        self._prepared: set[int] = set()
        """Those whose planner statistics are made."""
        self.needless_runs: frozenset[str] = frozenset()
        """Snapshot runs that were asked for to fill what is given up, or was filled by another run."""
        self._awaited: dict[int, dict[str, int]] = {}
        """Rebuild -> the transactions that began before this process saw it filled."""

    # --- a session begins, in its transaction ------------------------------------------------------------------------

    def in_hand(self) -> dict[str, Record]:
        """The rebuilds of mapped tables, by event; others are given up."""
        found = {}
        for record in self._records.in_hand(hold=True):
            if self._config.tables.get(record.event) == record.table:
                found[record.event] = record
            else:
                self._give_up(record, f"[sinks.{self._config.name}.tables] does not map {record.event} to it any more")
        self.needless_runs = frozenset(self._records.runs_of_ended())
        self._looked_at = time.monotonic()
        return found

    def prepare(self, record: Record, document: SchemaDocument, stream: str, *, begins: bool) -> Rebuild | None:
        """See that the shadow is there. None: it cannot be made, and the rebuild has failed.

        `begins`: the stream is begun, perhaps again, so that a shadow that is there is of another life.
        """
        self._database.execute(b"SAVEPOINT shadow")
        try:
            rebuild = self._prepare(record, document, stream, begins=begins)
        except SinkError as error:
            if error.retryable:
                raise
            self._database.execute(b"ROLLBACK TO SAVEPOINT shadow")
            self._give_up(record, str(error))
            return None
        self._database.execute(b"RELEASE SAVEPOINT shadow")
        return rebuild

    def _prepare(self, record: Record, document: SchemaDocument, stream: str, *, begins: bool) -> Rebuild:
        database, parts = self._database, parts_of(self._config, record, document)
        lives = [examine(database, part.event, part.table, of_part) for part, of_part in parts]
        shadows = self._examine_shadows(parts)
        names = sorted(str(part.shadow) for part, _ in parts)
        is_whole = self._records.shadows(record) == names and all(each.exists and not each.misfits for each in shadows)
        if record.state == "asked" or begins or not is_whole:
            for (part, _), live in zip(parts, lives, strict=True):
                require_free_way(database, part, live)
            self._records.drop_shadow(record)
            for part, of_part in parts:
                make(database, part, of_part)
            self._records.begin(record.id)
            self._prepared.discard(record.id)
            self._awaited.pop(record.id, None)
            shadows = self._examine_shadows(parts)
            log.info("rebuilding %s: %s is made", record.table, record.shadow)
        sink = self._config.pipeline.name, self._config.name
        replica, *_ = [claim(database, shadow, *sink, adopt=False, wants_snapshot=False) for shadow in shadows]
        load_children(database, replica, shadow_shapes(self._config, record, document))
        stored = self._records.find(record.id)
        assert stored is not None
        return Rebuild(stored, replica, stream, all(map(fits, lives)))

    def _examine_shadows(self, parts: Sequence[Part]) -> list[Examination]:
        return [examine(self._database, part.shadow_label, part.shadow, document) for part, document in parts]

    # --- a session has begun -----------------------------------------------------------------------------------------

    def request_snapshots(self, rebuilds: Mapping[str, Rebuild], control: Control) -> None:
        """Ask the reader to fill the shadows for which it was not asked."""
        self._request({label: each for label, each in rebuilds.items() if each.record.run is None}, control)

    def request_lost(self, rebuilds: Mapping[str, Rebuild], control: Control) -> None:
        """Ask again for the shadows whose run is not on its way, and which no other run fills."""
        lost = {}
        for label, rebuild in rebuilds.items():
            run, begun = rebuild.record.run, rebuild.shadow.run
            if not rebuild.is_filled and run is not None and begun in (None, run) and not control.is_on_its_way(run):
                lost[label] = rebuild
        self._request(lost, control)

    def _request(self, rebuilds: Mapping[str, Rebuild], control: Control) -> None:
        for label, rebuild in rebuilds.items():
            if rebuild.shadow_takes_rows and rebuild.record.run is None:
                continue
            (run,) = control.request_snapshot([label])
            with self._database.transaction():
                self._records.hold([rebuild.record.id])
                self._records.note_run(rebuild.record.id, run)
            rebuild.record = replace(rebuild.record, run=run)
            log.info("asked the reader for a snapshot of %s, to fill %s", label, rebuild.shadow.table)

    def keep(self, rebuilds: Mapping[str, Rebuild], checkpoints: Mapping[str, Checkpoint]) -> None:
        """Look for news and try swaps, when it is time. Raises RebuildMoved, for a new session to be opened."""
        if time.monotonic() - self._looked_at < PAUSE_SECONDS and not self._is_news(rebuilds):
            return
        self._looked_at = time.monotonic()
        with self._database.transaction():
            known = {record.id for record in self._records.in_hand()}
        if known != {rebuild.record.id for rebuild in rebuilds.values()}:
            raise RebuildMoved("a rebuild was asked for or called off")
        for rebuild in rebuilds.values():
            if rebuild.is_filled:
                self._try_to_swap(rebuild, checkpoints[rebuild.stream])

    def _is_news(self, rebuilds: Mapping[str, Rebuild]) -> bool:
        """Whether a shadow has just been filled."""
        return any(rebuild.is_filled and rebuild.record.id not in self._awaited for rebuild in rebuilds.values())

    # --- a batch, in its transaction ---------------------------------------------------------------------------------

    def hold(self, rebuilds: Sequence[Rebuild]) -> None:
        """Nobody may call these off before the batch is done. Raises RebuildMoved when somebody has."""
        if rebuilds:
            self._records.hold(rebuild.record.id for rebuild in rebuilds)

    def note(self, rebuilds: Sequence[Rebuild]) -> None:
        """What the batch has brought to these."""
        for rebuild in rebuilds:
            if rebuild.shadow_takes_rows:
                written, rebuild.written = rebuild.written, 0
                self._records.note_rows(rebuild.record.id, written, filled=rebuild.is_filled)
                state = "filled" if rebuild.is_filled else "filling"
                rebuild.record = replace(rebuild.record, rows=rebuild.record.rows + written, state=state)

    # --- the swap ----------------------------------------------------------------------------------------------------

    def _try_to_swap(self, rebuild: Rebuild, checkpoint: Checkpoint) -> None:
        record = rebuild.record
        reason = self._wait_for_older(record.id)
        if reason is None:
            try:
                parts = parts_of(self._config, record, rebuild.shadow.document)
                self._prepare_swap(parts)
                self._swap(record, parts, checkpoint)
            except TargetLocked:
                reason = f"waits for who holds a lock on {record.table}"
            except (CheckpointMoved, RebuildMoved):
                raise
            except SinkError as error:
                if error.retryable and not isinstance(error, DataRefused):
                    raise
                reason = f"cannot take its place: {error}"
            else:
                raise RebuildMoved(f"{record.table} is rebuilt: the table that was filled has taken its place")
        if reason != record.reason:
            log.info("the rebuild of %s %s", record.table, reason)
            with self._database.transaction():
                self._records.note_reason(record.id, reason)
            rebuild.record = replace(record, reason=reason)

    def _wait_for_older(self, id_: int) -> str | None:
        """What is waited for, in words; None: every transaction sees all that is in the shadow."""
        with self._database.transaction():
            now = older_transactions(self._database)
        awaited = self._awaited.setdefault(id_, now)
        self._awaited[id_] = left = {virtual_id: pid for virtual_id, pid in awaited.items() if virtual_id in now}
        pids = ", ".join(str(pid) for pid in sorted(left.values()))
        return f"waits for transactions that began before it was filled (PID {pids})" if left else None

    def _prepare_swap(self, parts: Sequence[Part]) -> None:
        """What would take too long under the live tables' locks."""
        id_ = parts[0].record.id
        with self._database.transaction():
            self._records.hold([id_])
            for part, _ in parts:
                if carry(self._database, part) or id_ not in self._prepared:
                    self._database.execute(compose("ANALYZE {}", identifier(part.shadow)))
        self._prepared.add(id_)

    def _swap(self, record: Record, parts: Sequence[Part], checkpoint: Checkpoint) -> None:
        database = self._database
        with database.transaction():
            self._checkpoints.lock(checkpoint)
            self._records.hold([record.id])
            database.execute(f"SET LOCAL lock_timeout = '{LOCK_WAIT}'".encode())
            for part, _ in parts:
                lock(database, part)
            for part, document in parts:
                require_free_way(database, part, examine(database, part.event, part.table, document))
                if carry(database, part):  # made since a moment ago
                    raise TargetLocked("an index was made meanwhile")
                swap(database, part)
            self._records.end(record.id, "done")
            self._checkpoints.advance(checkpoint, checkpoint.position, checkpoint.applied_lsn)

    # --- its end -----------------------------------------------------------------------------------------------------

    def fail(self, rebuild: Rebuild, reason: str) -> None:
        """The shadow does not take what it must: it goes, and the live table goes on."""
        with self._database.transaction():
            self._records.hold([rebuild.record.id])
            self._give_up(rebuild.record, reason)

    def freeze(self, rebuild: Rebuild, reason: str) -> None:
        """The live table does not take the event's new types: it stays as it is until the swap."""
        with self._database.transaction():
            self._records.hold([rebuild.record.id])
            self._records.freeze(rebuild.record.id)
        log.warning("%s stays as it is until it is rebuilt: %s", rebuild.record.table, reason)

    def _give_up(self, record: Record, reason: str) -> None:
        self._records.give_up(record, "failed", reason)
        log.error("the rebuild of %s has failed, and the table is as it was: %s", record.table, reason)
