"""The runs of a session: which begins next, what it waits for, when it is complete."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial

from cdc.control import Control
from cdc.counters import Counters
from cdc.related.fan_out import FanOutInHand
from cdc.snapshot.choosing import only_where
from cdc.snapshot.chunk_threads import ChunkThreads
from cdc.snapshot.in_hand import RunInHand
from cdc.snapshot.marks import Marks
from cdc.snapshot.run import Run, coalesced
from cdc.snapshot.sizing import share_bytes
from cdc.snapshot.subject import Subject
from cdc.snapshot.waiting import PATIENCE_SECONDS, Waiting
from cdc.snapshot.work_in_hand import WorkInHand
from cdc.source.connection import Source
from cdc.source.transactions import writers
from cdc.translation import Translator
from cdc.wording import counted
from transforms import wire
from transforms.condition.refusal import ConditionRefused
from transforms.names import TableName

log = logging.getLogger(__name__)

REFUSED_KEPT_SECONDS = 24 * 3600.0
REFUSED_KEPT = 20
"""So long, and of so many runs that were refused, `cdc status` tells, until another one of the event is begun."""


def _old_refusals(runs: Sequence[Run]) -> list[Run]:
    """Anybody may ask for what is refused: the newest tell enough."""
    refused = [run for run in runs if run.state == "refused"]
    begun = time.time() - REFUSED_KEPT_SECONDS
    return [run for at, run in enumerate(reversed(refused)) if at >= REFUSED_KEPT or (run.finished_at or 0.0) < begun]


@dataclass(slots=True)
class _Writers:
    """Transactions that may have written to a table before it was published."""

    open: frozenset[str]
    table: TableName
    since: float = field(default_factory=time.monotonic)
    told: bool = False

    def __str__(self) -> str:
        return f"{len(self.open)} open transactions that write to {self.table}"


class Runs:
    """Begins and ends runs, for the thread that keeps them."""

    def __init__(
        self,
        source: Source,
        control: Control,
        translator: Translator,
        subjects: Mapping[str, Subject],
        marks: Marks,
        threads: ChunkThreads,
        waiting: Waiting,
        counters: Counters,
        stream_waits_for: Callable[[str], str | None],
        meanwhile: Callable[[], None],
        stopped: Collection[str] = (),
    ) -> None:
        """`stopped`: events whose runs wait until they are mended.

        `stream_waits_for`: whose reading a stream waits for before it takes more rows of a snapshot.

        `meanwhile` is called now and then while a mark is waited for.
        """
        self._source = source
        self._control = control
        self._translator = translator
        self._subjects = subjects
        self._marks = marks
        self._threads = threads
        self._waiting = waiting
        self._counters = counters
        self._stream_waits_for = stream_waits_for
        self._meanwhile = meanwhile
        self._stopped = stopped
        self._writers: dict[str, _Writers] = {}
        """By event: of its runs that have not begun, one is for an event that was not published before."""
        self.paused_since: float | None = None
        """Since when runs that are left are paused, in seconds since 1970."""
        self._ended: set[str] = set()
        """Runs whose end is published by this session, though it may not be stored yet."""
        self._untold: list[Run] = []
        """Runs that are complete, while others are left."""

    @property
    def waiting_for(self) -> str | None:
        """What a run waits for, in words; not while a chunk is still in hand."""
        waiting = (run for run in self._threads.runs if not (run.threads or run.is_complete))
        held = (run.held_by() for run in waiting)
        return next(map(str, self._writers.copy().values()), None) or next(filter(None, held), None)

    def keep(self) -> bool:
        """End what is complete and begin what can be; returns whether anything is left to do."""
        for run in self._control.take_requests([*self._subjects, *self._stopped]):
            if run.event in self._subjects:
                self._judged(run)
        for in_hand in self._threads.runs:
            if not in_hand.run.is_fan_out:
                self._counters.runs[in_hand.run.event] = in_hand.run
            if in_hand.may_end:
                self._end(in_hand)
        stored = self._stored()
        left = [run for run in stored if self._is_left(run)]
        if self._untold and not left:
            rows = sum(run.rows for run in self._untold)
            events = counted(len(self._untold), "event")
            log.info("the last snapshot is done: %s, %s in all", events, counted(rows, "row"))
            self._untold.clear()
        paused_since = self._control.snapshots_paused_since()
        self._threads.pause(paused_since is not None)
        self.paused_since = paused_since if any(not run.is_fan_out for run in left) else None
        for run in left:
            if self._has_room_for(run, paused=paused_since is not None) and self._may_begin(run):
                self._begin(run, stored)
        return bool(left)

    def _is_left(self, run: Run) -> bool:
        """Whether something can be done for it now."""
        return not run.is_over and run.id not in self._ended and run.event in self._subjects

    def _has_room_for(self, run: Run, *, paused: bool) -> bool:
        """Fan-outs wait neither for snapshots nor while those are paused: they are changes, only later."""
        alike = [in_hand.run for in_hand in self._threads.runs if in_hand.run.is_fan_out == run.is_fan_out]
        if run.event in {each.event for each in alike}:
            return False
        return run.is_fan_out or (len(alike) < self._threads.count and not paused)

    def _stored(self) -> list[Run]:
        """The runs that are stored, without those that nobody can make and those that another one stands for."""
        stored = self._control.runs()
        unmapped = [run for run in stored if not self._is_mapped(run) and run.event not in self._stopped]
        gone = {run.id for run in (*unmapped, *_old_refusals(stored))}
        self._control.forget_runs(list(gone))
        stored = [run for run in stored if run.id not in gone]
        begun = self._ended.union(in_hand.run.id for in_hand in self._threads.runs)
        kept = coalesced(stored, begun)
        if len(kept) < len(stored):
            self._control.replace_runs(old=set(stored) - set(kept), new=set(kept) - set(stored))
        return kept

    def _is_mapped(self, run: Run) -> bool:
        subject = self._subjects.get(run.event)
        return subject is not None and (run.related is None or run.related in subject.mapping.ways)

    def _may_begin(self, run: Run) -> bool:
        """Whether nobody is left who may have written to the table before it was published."""
        if run.state != "pending" or not run.first:
            return True
        table = self._subjects[run.event].mapping.table
        now = writers(self._source, [each.oid for each in self._subjects[run.event].mapping.tables.values()])
        waited = self._writers.setdefault(run.event, _Writers(now, table.name))
        waited.open &= now
        if not waited.open:
            del self._writers[run.event]
            return True
        if not waited.told and time.monotonic() - waited.since > PATIENCE_SECONDS:
            waited.told = True
            log.warning("snapshot waits for %s", waited)
        return False

    def _judged(self, run: Run) -> Subject | None:
        """The rows that a run is for; None: it is refused, since its condition is."""
        try:
            return only_where(self._source, self._subjects[run.event], run.where)
        except ConditionRefused as error:
            refused = run.refused(str(error))
            self._control.store_runs([refused])
            log.error("snapshot of %s is refused: %s", refused.title, error)
            return None

    def _begin(self, run: Run, stored: list[Run]) -> None:
        if (subject := self._judged(run)) is None:
            return
        if run.state == "pending":
            self._control.forget_runs([old.id for old in stored if old.replaced_by(run)])
            run = run.advanced(state="running", started_at=time.time())
            run = self._publish_mark(run, wire.RUN_BEGIN, subject)
            among = "" if run.is_whole else "among "
            log.info("snapshot of %s begins (%sabout %s)", run.title, among, counted(subject.estimated_rows, "row"))
        else:
            if run.after is None:  # a masked key is not stored: such a run begins anew
                run = run.advanced(rows=0, scanned=0, share=0.0)
            log.info("snapshot of %s goes on behind row %d", run.title, run.rows)
        if not run.is_fan_out:
            self._counters.runs[run.event] = run
        chunk_bytes = share_bytes(self._threads.count)
        held_by = partial(self._stream_waits_for, subject.mapping.stream)
        kind = FanOutInHand if run.is_fan_out else RunInHand
        self._threads.add(kind(run, subject, self._translator, self._waiting, held_by, chunk_bytes))

    def _end(self, in_hand: WorkInHand) -> None:
        run = in_hand.run.advanced(state="done", share=1.0, values=(), finished_at=time.time())
        run = self._publish_mark(run, wire.RUN_END, in_hand.subject)
        self._ended.add(run.id)
        if not run.is_fan_out:
            self._untold.append(run)
            self._counters.runs[run.event] = run
        self._threads.remove(in_hand)
        log.info("snapshot of %s is complete: %s", run.title, counted(run.rows, "row"))

    def _publish_mark(self, run: Run, name: str, subject: Subject) -> Run:
        """Publish where a run begins or ends, and store it; returns it with the mark's place.

        One of a part of the rows is only stored: a sink deletes what it does not see between the two marks.
        """

        def publish() -> Run:
            marked = run
            if run.is_whole:
                data: dict[str, object] = {"run": run.id, "event": run.event}
                entry_id = self._translator.entries.mark(subject.mapping.stream, name, data, run.to)
                marked = run.advanced(**{"begun" if name == wire.RUN_BEGIN else "ended": entry_id})
                if run.to is None:
                    self._translator.run_marked(name, marked)
            self._translator.note(run.event, run.id, marked.to_json())
            return marked

        return self._marks.emit(self._source, publish, meanwhile=self._meanwhile)
