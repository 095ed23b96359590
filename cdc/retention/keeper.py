"""Retention beside the reader: a thread that looks at the streams each second, trims them, and knows who is behind.

It lives as long as the reader and not as a session, with a connection of its own: Redis may be full, so that no
session can be opened, and what was read meanwhile must go all the same. Each call to Redis does little, and publishing
never waits for this thread but where a laggard is to be waited for.
"""

from __future__ import annotations

import logging
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import NamedTuple

from cdc.config import ReaderConfig
from cdc.control import Control
from cdc.retention import wording
from cdc.retention.blocking import Blocking
from cdc.retention.figures import Unread, named
from cdc.retention.judging import Backlog, Judgement, Rules, StreamSeen, backlogs_of, judge
from cdc.retention.streams import RegisteredSink, StreamName, Streams, names_of
from cdc.retention.watched import WatchedStreams
from cdc.retention.wording import Hindrance
from cdc.transport import connect
from transforms.errors import StatecastError
from transforms.keys import Keys
from transforms.position import LSN
from transforms.pulse import Pulse

log = logging.getLogger(__name__)

ROUND_SECONDS = 1.0
LOOK_SECONDS = 10.0
"""How often it is looked for new sinks, and trails are stored. A sink makes its groups first, which count at once."""
STEPS_PER_ROUND = 200
SILENT_SECONDS = 120.0
END_SECONDS = 5.0
STALE_SECONDS = 30.0
"""A look that is older tells nothing any more."""

_REPORT = "Report it with the traceback from the reader's log."


class _Confirmed(NamedTuple):
    """Up to where the source never sends again, and for which streams that was said.

    A source that was restored sends again what another life of the streams had confirmed, to others.
    """

    life: str
    position: LSN


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
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="retention", daemon=True)
        self._watched = WatchedStreams(transport.retain.total_seconds())
        self._sinks: Sequence[RegisteredSink] = ()
        self._looked_at = 0.0
        self._confirmed = _Confirmed("", LSN(0))
        self.blocking = Blocking(transport.max_backlog_bytes, sent_bytes)
        self.failure: Hindrance | None = None
        """Why trimming does not work; None: it does."""
        self.trimmed: Counter[str] = Counter()
        """Stream -> entries removed since this process began."""
        self.limit_bytes = transport.max_backlog_bytes
        """What a reader of a stream may have unread; None: any amount."""
        self._unread: tuple[float, Sequence[Unread]] | None = None
        """When the last whole look was (monotonic), and what it found."""

    def unread(self, now: float) -> Sequence[Unread] | None:
        """Who has not read what; None: not known, as nobody looks, or Redis does not answer."""
        seen = self._unread
        return seen[1] if seen is not None and now - seen[0] < STALE_SECONDS else None

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
                else:
                    self._forget()
        self._pulse.end("retention")

    def _forget(self) -> None:
        """Another process is the reader now: what this one has seen is of no meaning."""
        self._unread = self.failure = None
        self.blocking.forget()

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
        confirmed = self._look_at_confirmed(control, state.life)
        passed = streams.passed()
        blocking: list[tuple[str, Backlog]] = []
        backlogs: dict[str, int] = {}
        unread: list[Unread] = []
        sent_before = self._sent_bytes()
        for name in names_of(state):
            seen = streams.look(name, self._sinks, passed)
            if seen is None:
                continue
            found = backlogs_of(seen, self._watched.trail(seen))
            judgement = judge(
                seen,
                found,
                self._rules,
                confirmed=confirmed if name.epoch == state.epoch else None,
                young=self._watched.young(streams, seen),
                memory_is_short=self.blocking.memory.is_short,
            )
            for sink in judgement.returned:
                streams.unmark(sink, name, passed)
            self._trim(streams, name, seen, judgement)
            unread += self._figures(name, seen, found, judgement)
            if name.epoch == state.epoch:
                blocking += [(seen.key, backlog) for backlog in judgement.blocking]
                if counting := [each.size_bytes for each in found if each.holder.name not in judgement.exempt]:
                    backlogs[name.stream] = max(counting)
        self.blocking.seen(blocking, backlogs, sent_before)
        self._unread = time.monotonic(), named(unread)

    def _figures(
        self, name: StreamName, seen: StreamSeen, backlogs: Sequence[Backlog], judgement: Judgement
    ) -> Iterator[Unread]:
        self._watched.note_floor(seen, judgement.floor)
        for backlog in backlogs:
            holds = backlog in judgement.held_by
            seconds = self._watched.holding_seconds(seen, backlog.holder.position) if holds else 0.0
            yield Unread.of(name.stream, backlog, seconds)

    def _look_at_confirmed(self, control: Control, life: str) -> LSN:
        """Up to where the source never sends again what is in the streams of this life."""
        status = control.read_status() or {}
        if (told := status.get("confirmed")) and status.get("confirmed_in") == life:  # not while there is no session
            self._confirmed = _Confirmed(life, LSN.parse(told))
        return self._confirmed.position if self._confirmed.life == life else LSN(0)

    def _look_around(self, streams: Streams) -> None:
        """What changes slowly."""
        memory = streams.memory()
        if memory.is_short and not self.blocking.memory.is_short:
            log.warning("Redis is short of memory (%s): entries go as soon as read", wording.of_memory(memory))
        self.blocking.memory = memory
        if not self._watched.are_loaded:
            self._watched.load(streams)
        elif time.monotonic() - self._looked_at < LOOK_SECONDS:
            return
        self._sinks = streams.sinks()
        self._looked_at = time.monotonic()
        self._watched.store(streams)

    def _trim(self, streams: Streams, name: StreamName, seen: StreamSeen, judgement: Judgement) -> None:
        if judgement.keep_from <= seen.first:
            return
        for step, removed in enumerate(streams.trim(name, judgement.keep_from, judgement.exempt), 1):
            self.trimmed[name.stream] += removed
            if step >= STEPS_PER_ROUND or self._stop.is_set():
                return
