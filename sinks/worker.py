"""The loop of a sink: read a batch behind the checkpoint, apply it together with the checkpoint, again.

One process and one thread work on all streams of a sink. No transaction is open while Redis is read. What may pass by
itself is tried again for ever, with a fresh session; everything else ends the worker.
"""

from __future__ import annotations

import logging
import os
import secrets
import socket
import threading
import time
from typing import NamedTuple

import tenacity

from sinks.applying import Applying
from sinks.checkpoint import Checkpoints
from sinks.config import SinkConfig
from sinks.control import Control
from sinks.counters import Counters
from sinks.errors import (
    CheckpointMoved,
    RebuildMoved,
    StreamBegunAgain,
    StreamEmptied,
    StreamHole,
    StreamsReplaced,
    StreamTailLost,
    TableReplaced,
    TransportNotTrusted,
    TransportUnreachable,
)
from sinks.feed import Feed, Place
from sinks.pace import Pace, pause_before_look
from sinks.postgres import Database
from sinks.rebuild.keeping import Rebuilding
from sinks.session import Opener, Prospect, Session
from sinks.status import SinkStatus
from sinks.stream import StreamReader
from sinks.telling import Teller
from sinks.transport import connect
from sinks.unknown_events import Wait
from transforms.errors import EXIT_DIFFERENCE, EXIT_DONE, EXIT_INTERRUPTED, MalformedEntry, StatecastError
from transforms.keys import Keys
from transforms.position import LSN, Position
from transforms.pulse import Pulse

IDLE_SECONDS = 1.0
RENEW_SECONDS = 3.0
ASK_AGAIN_SECONDS = 10.0
"""Between two looks whether a snapshot that was asked for is on its way."""
CANCEL_SECONDS = 3.0
"""A statement that still runs this long after the worker was told to end is cancelled."""

STEP_SECONDS = 900.0
"""How long a step may be silent: a sweep or a truncate of a large table is one statement without a time limit."""
LONGEST_PAUSE_SECONDS = 5.0
"""A server that is back is found within so long, after however long an outage."""
PAUSE_SLACK_SECONDS = 30.0

log = logging.getLogger(__name__)


class _Transport(NamedTuple):
    """What reads and writes Redis, while it can be reached."""

    control: Control
    reader: StreamReader
    feed: Feed


class Worker:
    """Applies events until `stop` is set, or with `once` up to what is there now."""

    def __init__(
        self, config: SinkConfig, stop: threading.Event, *, once: bool = False, connect_timeout_seconds: float = 60.0
    ) -> None:
        owner = f"{socket.gethostname()}:{os.getpid()}:{secrets.token_hex(4)}"
        pipeline, sink = config.pipeline.name, config.name
        self._config = config
        self._stop = stop
        self._once = once
        self._connect_timeout_seconds = connect_timeout_seconds
        self._database = Database(config.address, f"cdc-sink {pipeline}/{sink}")
        self._checkpoints = Checkpoints(self._database, pipeline, sink, owner)
        self._rebuilding = Rebuilding(config, self._database, self._checkpoints)
        self._applying = Applying(config, self._database, self._checkpoints, self._rebuilding)
        self._opener = Opener(config, self._database, self._checkpoints, self._rebuilding)
        self._pace = Pace()
        self._transport: _Transport | None = None
        self._session: Session | None = None
        self._contacted = False
        self._standing_by = False
        self._asked_to_fill = False
        """A snapshot was asked for because a stream was empty."""
        self._lost: dict[str, Position] = {}
        """Stream -> this sink's place in it, where Redis was found to have lost the stream's end."""
        self._goals: dict[str, Position] | None = None
        """With `once`: stream -> the last entry to apply."""
        self._reached = False
        self._parked = 0
        self.status = SinkStatus(sink, events=list(config.tables))
        self.counters = Counters()
        self.pulse = Pulse()
        self._teller = Teller(self.status, self.counters)
        self._began = time.monotonic()
        self._renewed_at = 0.0
        self._asked_at = 0.0
        self._asked_again = False
        """Whether this session has looked once, at the end of all streams, if what was asked for is on its way."""

    def run(self) -> int:
        """Returns the exit code. Raises StatecastError for what ends the worker before it is told to."""
        ended = threading.Event()
        threading.Thread(target=self._cancel_when_late, args=(ended,), daemon=True).start()
        retrying = tenacity.Retrying(
            retry=tenacity.retry_if_exception(lambda error: isinstance(error, StatecastError) and error.retryable),
            wait=tenacity.wait_exponential(multiplier=0.1, max=LONGEST_PAUSE_SECONDS) + tenacity.wait_random(0, 0.1),
            stop=lambda state: self._stop.is_set() or self._gives_up(state),
            sleep=tenacity.sleep_using_event(self._stop),
            before_sleep=self._note_failure,
            reraise=True,
        )
        try:
            while not self._stop.is_set() and not self._reached:
                retrying(self._step)
            self.status.enter("stopped")
        except StatecastError as error:
            if isinstance(error, TransportNotTrusted | TransportUnreachable):
                self._close_transport()  # there is nobody to tell
            if not (self._stop.is_set() and error.retryable):
                self.status.fail("stopped", error)
                raise
            self.status.enter("stopped")
        finally:
            self._leave()
            ended.set()
        if not self._once:
            return EXIT_DONE
        if not self._reached:
            return EXIT_INTERRUPTED
        return EXIT_DIFFERENCE if self._parked else EXIT_DONE

    # --- sessions ----------------------------------------------------------------------------------------------------

    def _step(self) -> None:
        self.pulse.beat("worker", time.monotonic() + STEP_SECONDS)
        try:
            session = self._session or self._open()
            if session is None:
                self._stop.wait(0.0 if self._reached else pause_before_look(self._waited_seconds))
                return
            self._session = session
            self._renew(session)
            moved = self._advance_all(session)
            if not moved:  # so that `applied_lsn` has been written too
                self._reached = self._goals_reached({s: c.position for s, c in session.checkpoints.items()})
            self._keep(session)
            if not (moved or self._reached or self._stop.is_set()):
                positions = {s: session.seen.get(s, c.position) for s, c in session.checkpoints.items()}
                self._reader.wait(positions, IDLE_SECONDS)
        except (CheckpointMoved, RebuildMoved, StreamBegunAgain, StreamsReplaced, TableReplaced) as error:
            is_news = isinstance(error, StreamBegunAgain | TableReplaced)
            log.log(logging.WARNING if is_news else logging.INFO, "%s", error)
            self._session = None
            self._stop.wait(0.05)

    def _open(self) -> Session | None:
        self._database.connect()
        if self._transport is None:
            client = connect(self._config.transport.address)
            keys, sink = Keys(self._config.pipeline.name), self._config.name
            reader = StreamReader(client, keys, sink)
            self._transport = _Transport(Control(client, keys, sink), reader, Feed(reader, sink))
        self._control.ping()
        self._contacted = True
        self._checkpoints.make_schema()
        try:
            return self._open_session()
        except StatecastError:
            self._opener.let_go(self._reader)
            raise

    def _open_session(self) -> Session | None:
        prospect = self._opener.look(self._control, self._reader)
        if isinstance(prospect, Wait):
            if self.status.enter("starting", prospect.reason, prospect.remedy):
                log.warning("waiting: %s (%s)", prospect.reason, prospect.remedy)
            self._teller.tell(self._control)
            return None
        if self._once and self._goals is None:
            self._goals = {stream: ends.last for stream, ends in prospect.ends.items() if ends.last is not None}
        self._feed.forget()
        try:
            session = self._opener.open(prospect)
        except StreamEmptied as error:
            if not self._asked_to_fill:
                self._control.request_snapshot(error.labels)
                self._asked_to_fill = True
            raise
        if session is None:
            self._stand_by(prospect)
            return None
        self._opener.tell_places(session, self._reader)
        self._standing_by = False
        self.counters.sessions += 1
        self._opener.request_snapshots(session, self._control)
        self._asked_at, self._asked_again = time.monotonic(), False
        self.status.enter("streaming")
        self._teller.begin()
        self._renewed_at = 0.0
        return session

    @property
    def _waited_seconds(self) -> float:
        """How long nothing has been there to be worked on, or somebody else has done it."""
        return float("inf") if self._standing_by else time.monotonic() - self._began

    def _stand_by(self, prospect: Prospect) -> None:
        self._standing_by = True
        if self.status.enter("standby"):  # only told here: the status key is that of the worker that works
            log.info("another worker of sink %s is alive: standing by", self._config.name)
        with self._database.transaction():
            checkpoints = self._checkpoints.read()
        self._reached = self._goals_reached({s: c.position for s, c in checkpoints.items() if s in prospect.streams})

    def _goals_reached(self, positions: dict[str, Position]) -> bool:
        if self._goals is None:
            return False
        return all(stream not in positions or positions[stream] >= goal for stream, goal in self._goals.items())

    # --- batches -----------------------------------------------------------------------------------------------------

    def _advance_all(self, session: Session) -> bool:
        """Apply what there is of each stream, or a batch; returns whether there was anything.

        Where streams are behind, as in a snapshot, the others have their turn before each batch of one of them: what
        is news there waits for one batch, not for one of every stream.
        """
        moved = False
        large = [[stream] for stream in session.checkpoints if stream in session.behind]
        for last in large or [[]]:
            for stream in [stream for stream in session.checkpoints if stream not in session.behind] + last:
                moved = (not self._stop.is_set() and self._advance_placed(session, stream)) or moved
        return moved

    def _advance_placed(self, session: Session, stream: str) -> bool:
        """`_advance`; an entry that is not the reader's is told with the stream that it is in."""
        try:
            return self._advance(session, stream)
        except MalformedEntry as error:
            raise self._reader.placed(stream, error) from error

    def _advance(self, session: Session, stream: str) -> bool:
        """Apply a batch of a stream, while the next large one is made; returns whether there was one."""
        checkpoint = session.checkpoints[stream]
        try:
            batch = self._feed.take(self._place(session, stream, checkpoint.position))
        except StreamTailLost:
            self._lost[stream] = checkpoint.position
            raise
        except StreamHole as hole:
            lost = self._lost.get(stream) == checkpoint.position
            raise self._opener.begin_again(checkpoint, hole, self._reader, lost=lost) from hole
        self._lost.pop(stream, None)
        self.status.published = batch.published
        self.counters.read(batch, time.time())
        session.at_end[stream] = batch.at_end
        if batch.seen is not None:
            session.seen[stream] = batch.seen
        if not batch.more:
            session.behind.discard(stream)
        elif batch.end is not None:
            session.behind.add(stream)
            following = session.next_behind(stream)
            position = batch.end if following == stream else session.checkpoints[following].position
            self._feed.begin(self._place(session, following, position))
        applied_lsn = max(checkpoint.applied_lsn or LSN(0), batch.complete_to) or None
        if batch.end is not None:
            began = time.monotonic()
            parked = self._applying.apply(
                session, batch, batch.end, applied_lsn, self._control.documents, self._control.runs
            )
            self._opener.request_wanted(session, self._control)
            self._pace.took(stream, batch.size, time.monotonic() - began)
            self._parked += parked
            self.status.dead += parked
            self.status.newest_seconds = batch.committed_at
            self.counters.applied(batch, parked, time.monotonic(), time.time())
        elif applied_lsn != checkpoint.applied_lsn and (self._once or self._teller.is_due()):
            with self._database.transaction():
                advanced = self._checkpoints.advance(checkpoint, checkpoint.position, applied_lsn)
            session.checkpoints[stream] = advanced
        self.counters.holds(stream, max(session.checkpoints[stream].position.commit_lsn, applied_lsn or LSN(0)))
        return batch.end is not None

    def _place(self, session: Session, stream: str, behind: Position) -> Place:
        goal = self._goals.get(stream) if self._goals is not None else None
        before_others = bool(session.behind) and stream not in session.behind
        limit = self._pace.entries(stream, before_others=before_others)
        return Place(session.meta, stream, session.streams[stream], behind, goal, limit)

    # --- around the loop ---------------------------------------------------------------------------------------------

    @property
    def _control(self) -> Control:
        assert self._transport is not None
        return self._transport.control

    @property
    def _reader(self) -> StreamReader:
        assert self._transport is not None
        return self._transport.reader

    @property
    def _feed(self) -> Feed:
        assert self._transport is not None
        return self._transport.feed

    def _renew(self, session: Session) -> None:
        """Before anything is written: a worker that was suspended may have lost its lease or its tables."""
        now = time.monotonic()
        if now - self._renewed_at >= RENEW_SECONDS:
            with self._database.transaction():
                self.status.dead = self._checkpoints.renew(len(session.checkpoints))
            self._opener.require_same_tables(session)
            self._renewed_at = now

    def _keep(self, session: Session) -> None:
        now = time.monotonic()
        first_time = not self._asked_again and len(session.at_end_of) == len(session.checkpoints)
        if first_time or now - self._asked_at >= ASK_AGAIN_SECONDS:
            self._opener.request_lost(session, self._control)
            self._asked_at, self._asked_again = now, self._asked_again or first_time
        if self._teller.is_due():
            self._teller.tell_progress(session, self._control, self._reader)
        self._rebuilding.keep(session.rebuilds, session.checkpoints)

    def _gives_up(self, state: tenacity.RetryCallState) -> bool:
        return not self._contacted and (state.seconds_since_start or 0.0) >= self._connect_timeout_seconds

    def _note_failure(self, state: tenacity.RetryCallState) -> None:
        error = state.outcome.exception() if state.outcome else None
        assert isinstance(error, StatecastError)
        self._session = None
        self.counters.failures.note(error, time.time())
        self.pulse.beat("worker", time.monotonic() + state.upcoming_sleep + PAUSE_SLACK_SECONDS)
        if self.status.fail("reconnecting" if self._contacted else "starting", error):
            log.warning("%s; trying again (%s)", error, error.remedy)
        if isinstance(error, TransportUnreachable):
            self._close_transport()
        elif self._transport is not None and not self._standing_by:
            try:
                self._teller.tell(self._control)
            except StatecastError:
                self._close_transport()

    def _cancel_when_late(self, ended: threading.Event) -> None:
        while not ended.wait(IDLE_SECONDS / 2):
            if self._stop.is_set():
                if not ended.wait(CANCEL_SECONDS):
                    self._database.cancel()
                return

    def _leave(self) -> None:
        """Let the next worker go on at once, tell the world, and close everything, as far as that is possible."""
        session = self._session
        try:
            if session is not None:
                with self._database.transaction():
                    self._checkpoints.release()
        except StatecastError as error:
            log.warning("the lease could not be given back: %s", error)
        try:
            if self._transport is not None and not self._standing_by:
                if session is not None:
                    self._teller.tell_progress(session, self._control, self._reader)
                else:
                    self._teller.tell(self._control)
        except StatecastError as error:
            if str(error) != self.status.reason:  # else it is told already
                log.warning("the last status could not be written: %s", error)
        self._database.close()
        self._close_transport()

    def _close_transport(self) -> None:
        if self._transport is not None:
            self._feed.close()
            self._control.close()
            self._transport = None
