"""Retention beside the reader: a thread that looks at the streams each second, trims them, and knows who is behind.

It lives as long as the reader and not as a session, with a connection of its own: Redis may be full, so that no
session can be opened, and what was read meanwhile must go all the same. Each call to Redis does little, and publishing
never waits for this thread but where a laggard is to be waited for.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import NamedTuple

from cdc.config import ReaderConfig
from cdc.control import Control
from cdc.errors import TransportFull
from cdc.retention import wording
from cdc.retention.entry_trail import EntryTrail
from cdc.retention.judging import Backlog, Judgement, Memory, Rules, StreamSeen, judge
from cdc.retention.streams import RegisteredSink, StreamName, Streams
from cdc.transport import TransportState, connect
from transforms.errors import StatecastError
from transforms.keys import Keys
from transforms.position import LSN, Position
from transforms.pulse import Pulse

log = logging.getLogger(__name__)

ROUND_SECONDS = 1.0
LOOK_SECONDS = 10.0
"""How often it is looked for new sinks, and trails are stored. A sink makes its groups first, which count at once."""
YOUNG_SECONDS = 30.0
"""How often, at least, it is looked which entries are older than `retain`; a twentieth of that if it is shorter."""
STEPS_PER_ROUND = 200
SILENT_SECONDS = 120.0
END_SECONDS = 5.0
SNAPSHOT_SHARE = 0.5
"""Of `max_backlog_bytes`, what a snapshot leaves to changes."""


_REPORT = "Report it with the traceback from the reader's log."


class Hindrance(NamedTuple):
    """Why publishing waits, or trimming fails."""

    reason: str
    remedy: str


@dataclass(slots=True)
class _Watched:
    """What is known of one stream from round to round."""

    trail: EntryTrail
    young: Position | None = None
    young_at: float = 0.0


class Retention:
    """Trims the streams of one pipeline until closed. One thread works; what it knows may be read from any."""

    def __init__(
        self, config: ReaderConfig, is_ours: Callable[[], bool], sent_bytes: Callable[[], int], pulse: Pulse
    ) -> None:
        """`is_ours`: whether this process is the pipeline's reader, and not one that stands by.

        `sent_bytes`: how much it has sent to Redis since it began.
        """
        transport = config.transport
        self._config = config
        self._keys = Keys(config.pipeline.name)
        self._is_ours = is_ours
        self._sent_bytes = sent_bytes
        self._pulse = pulse
        self._rules = Rules(transport.max_backlog_bytes, transport.laggard)
        self._retain_seconds = transport.retain.total_seconds()
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="retention", daemon=True)
        self._watched: dict[StreamName, _Watched] = {}
        self._stored: dict[str, EntryTrail] | None = None
        """Trails that an earlier process has left; None: not read yet."""
        self._sinks: Sequence[RegisteredSink] = ()
        self._looked_at = 0.0
        self._memory = Memory(0, 0)
        self._confirmed = LSN(0)
        """Up to where the source never sends again."""
        self._backlogs: dict[str, int] | None = None
        """Stream of the present epoch that has readers -> the largest backlog in it, in bytes. None: not looked."""
        self._sent_before = 0
        """What had been sent when backlogs were looked at."""
        self._waits = threading.Condition()
        self._blocked: Hindrance | None = None
        self.failure: Hindrance | None = None
        """Why trimming does not work; None: it does."""
        self.trimmed = 0
        """Entries removed since this process began."""

    # --- for others --------------------------------------------------------------------------------------------------

    @property
    def blocked(self) -> Hindrance | None:
        """Why nothing is to be published now."""
        return self._blocked

    def wait_while_blocked(self, timeout_seconds: float) -> None:
        """Return when publishing may go on, or after the timeout."""
        with self._waits:
            self._waits.wait_for(lambda: self._blocked is None, timeout_seconds)

    def snapshot_waits_for(self, stream: str) -> str | None:
        """Why no more rows of a snapshot should be published to a stream now; None: they may.

        Of what was seen last, so it costs nothing to ask; all that was sent since counts as unread.
        """
        limit = self._rules.max_backlog_bytes
        if self._backlogs is None:
            return None if limit is None else f"a first look at who reads stream {stream}"
        if (backlog := self._backlogs.get(stream)) is None:
            return None
        if limit is not None and backlog + self._sent_bytes() - self._sent_before > SNAPSHOT_SHARE * limit:
            return f"the readers of stream {stream} ({wording.of_limit(backlog, limit)})"
        if self._memory.is_short and backlog:
            return f"the readers of stream {stream} (Redis is short of memory: {wording.of_memory(self._memory)})"
        return None

    @contextmanager
    def running(self) -> Iterator[None]:
        """Trim while the block runs."""
        self._thread.start()
        try:
            yield
        finally:
            self._stop.set()
            self._thread.join(END_SECONDS)

    # --- the thread --------------------------------------------------------------------------------------------------

    def _run(self) -> None:
        with connect(self._config.transport.address) as client:
            control, streams = Control(client, self._keys), Streams(client, self._keys)
            while not self._stop.wait(ROUND_SECONDS):
                self._pulse.beat("retention", time.monotonic() + SILENT_SECONDS)
                if self._is_ours():
                    self._try_round(control, streams)
        self._pulse.end("retention")

    def _try_round(self, control: Control, streams: Streams) -> None:
        try:
            self._round(control, streams)
        except StatecastError as error:
            if error.retryable:
                log.debug("no round of retention: %s", error)
                return
            if self.failure is None:
                log.error("streams are not trimmed: %s (%s)", error, error.remedy)
            self.failure = Hindrance(str(error), error.remedy)
        except Exception as error:  # a thread that ended in silence would let Redis fill up
            if self.failure is None:
                log.exception("streams are not trimmed")
            self.failure = Hindrance(
                f"{type(error).__name__} in retention: the reader's log has the traceback", _REPORT
            )
        else:
            self.failure = None

    def _round(self, control: Control, streams: Streams) -> None:
        state = control.state([event.stream for event in self._config.events])
        if not state.meta:
            return
        self._look_around(streams)
        if told := (control.read_status() or {}).get("confirmed"):  # not while there is no session
            self._confirmed = LSN.parse(told)
        passed = streams.passed()
        blocking: list[tuple[str, Backlog]] = []
        backlogs: dict[str, int] = {}
        sent_before = self._sent_bytes()
        for name in names_of(state):
            seen = streams.look(name, self._sinks, passed)
            if seen is None:
                continue
            watched = self._watch(name, seen)
            unread = backlogs_of(seen, watched.trail)
            judgement = judge(
                seen,
                unread,
                self._rules,
                confirmed=self._confirmed if name.epoch == state.epoch else None,
                young=self._young(streams, watched, seen),
                memory_is_short=self._memory.is_short,
            )
            for sink in judgement.returned:
                streams.unmark(sink, name)
            self._trim(streams, name, seen, judgement)
            if name.epoch == state.epoch:
                blocking += [(seen.key, backlog) for backlog in judgement.blocking]
                if counting := [each.size_bytes for each in unread if each.holder.name not in judgement.exempt]:
                    backlogs[name.stream] = max(counting)
        self._backlogs, self._sent_before = backlogs, sent_before
        self._block(blocking)

    def _look_around(self, streams: Streams) -> None:
        """What changes slowly."""
        memory = streams.memory()
        if memory.is_short and not self._memory.is_short:
            log.warning("Redis is short of memory (%s): entries go as soon as read", wording.of_memory(memory))
        self._memory = memory
        if self._stored is None:
            self._stored = streams.trails()
        elif time.monotonic() - self._looked_at < LOOK_SECONDS:
            return
        self._sinks = streams.sinks()
        self._looked_at = time.monotonic()
        try:
            streams.store_trails({self._keys.stream(*name): each.trail for name, each in self._watched.items()})
        except TransportFull:  # the trails can wait, trimming cannot
            log.debug("no memory to store trails")

    def _watch(self, name: StreamName, seen: StreamSeen) -> _Watched:
        if name not in self._watched:
            self._watched[name] = _Watched((self._stored or {}).get(seen.key) or EntryTrail())
        watched = self._watched[name]
        watched.trail.note(seen.last, seen.added)
        watched.trail.forget_before(seen.first)
        return watched

    def _young(self, streams: Streams, watched: _Watched, seen: StreamSeen) -> Position:
        if not self._retain_seconds:
            return Position(LSN(seen.last.commit_lsn + 1), 0)
        now = time.monotonic()
        if watched.young is None or now - watched.young_at >= min(YOUNG_SECONDS, self._retain_seconds / 20):
            watched.young = streams.younger_than(seen, time.time() - self._retain_seconds)
            watched.young_at = now
        return watched.young

    def _trim(self, streams: Streams, name: StreamName, seen: StreamSeen, judgement: Judgement) -> None:
        if judgement.keep_from <= seen.first:
            return
        for step, removed in enumerate(streams.trim(name, judgement.keep_from, judgement.exempt), 1):
            self.trimmed += removed
            if step >= STEPS_PER_ROUND or self._stop.is_set():
                return

    def _block(self, blocking: Sequence[tuple[str, Backlog]]) -> None:
        limit, blocked = self._rules.max_backlog_bytes, None
        if blocking and limit is not None:
            blocked = Hindrance(*wording.waiting(blocking, limit))
            if self._blocked is None:
                log.warning("publishing %s (%s)", blocked.reason, blocked.remedy)
        elif self._blocked is not None:
            log.info("publishing goes on")
        with self._waits:
            self._blocked = blocked
            self._waits.notify_all()


def names_of(state: TransportState) -> list[StreamName]:
    """Every stream of the pipeline, those of earlier epochs too."""
    return [StreamName(stream, epoch) for stream in state.stream_ends for epoch in range(1, state.epoch + 1)]


def backlogs_of(seen: StreamSeen, trail: EntryTrail) -> list[Backlog]:
    """What each of a stream's readers has not read yet."""
    found = []
    for holder in seen.holders:
        entries = seen.unread(holder.position, trail.behind(holder.position))
        found.append(Backlog(holder, entries, seen.bytes_of(entries)))
    return found
