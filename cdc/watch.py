"""What a reader cannot know from its own work, looked up every few seconds for `--metrics-port`.

A thread with connections of its own: the log's end and the slot at the source, streams and sinks in Redis. So the loop
that publishes never waits for it, and the figures go on while the reader stands by or reconnects. It sees a sink from
outside, by what it last wrote, also when that sink hangs or is gone.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Mapping
from contextlib import ExitStack
from dataclasses import dataclass, field
from typing import Any, TypeVar

from cdc.config import ReaderConfig
from cdc.control import Control
from cdc.retention.judging import Memory
from cdc.retention.streams import Streams
from cdc.source.connection import Source
from cdc.source.slot import Slot, find_slot
from cdc.source.write_ahead_log import flush_position
from cdc.trail import Trail
from cdc.transport import connect
from transforms.errors import StatecastError
from transforms.keys import Keys
from transforms.position import LSN, Position

log = logging.getLogger(__name__)

Seen = TypeVar("Seen", "SourceSeen", "TransportSeen")

INTERVAL_SECONDS = 2.0
STALE_SECONDS = 30.0
"""A look that is older tells nothing any more: the one after it hangs at its server."""
END_SECONDS = 1.0
"""How long an end waits for a look in hand."""


@dataclass(frozen=True, slots=True)
class SinkSeen:
    """A sink by what it last wrote to Redis."""

    name: str
    alive_at: float
    """Seconds since 1970."""
    lag_bytes: int | None
    lag_seconds: float | None
    """None: it has not applied anything yet."""


@dataclass(frozen=True, slots=True)
class SourceSeen:
    """The source at one moment."""

    flushed: LSN
    slot: Slot | None
    at: float = field(default_factory=time.monotonic)


@dataclass(frozen=True, slots=True)
class TransportSeen:
    """Redis at one moment."""

    published: LSN
    streams: tuple[tuple[str, int, int], ...]
    """(stream, entries, bytes)"""
    sinks: tuple[SinkSeen, ...]
    memory: Memory
    at: float = field(default_factory=time.monotonic)


class Watch:
    """Looks at both servers until closed."""

    def __init__(self, config: ReaderConfig) -> None:
        self._config = config
        self._keys = Keys(config.pipeline.name)
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="watch", daemon=True)
        self._connection: Source | None = None
        self._published = Trail()
        self.written = Trail()
        """Where the log's end was; monotonic seconds."""
        self.last_source: SourceSeen | None = None
        self.last_transport: TransportSeen | None = None
        """What was seen last; None: it could not be reached."""

    @property
    def source(self) -> SourceSeen | None:
        """The source, while it answers."""
        return _if_fresh(self.last_source)

    @property
    def transport(self) -> TransportSeen | None:
        """Redis, while it answers."""
        return _if_fresh(self.last_transport)

    def start(self) -> None:
        """Begin to look."""
        self._thread.start()

    def close(self) -> None:
        """Look no more. A look that waits for a server ends with the process."""
        self._stop.set()
        self._thread.join(END_SECONDS)

    def _run(self) -> None:
        with ExitStack() as stack:
            client = stack.enter_context(connect(self._config.transport.address))
            stack.callback(self._disconnect)
            control, of_streams = Control(client, self._keys), Streams(client, self._keys)
            while not self._stop.is_set():
                self.last_source = self._look_at_source()
                self.last_transport = self._look_at_transport(control, of_streams)
                self._stop.wait(INTERVAL_SECONDS)

    def _look_at_source(self) -> SourceSeen | None:
        try:
            if self._connection is None:
                name = f"{self._config.application_name}_watch"
                self._connection = Source(self._config.source.address, name)
            seen = SourceSeen(flush_position(self._connection), find_slot(self._connection, self._config.source.slot))
        except StatecastError as error:
            log.debug("no figures of the source: %s", error)
            self._disconnect()
            return None
        self.written.note(time.monotonic(), seen.flushed)
        return seen

    def _disconnect(self) -> None:
        if self._connection is not None:
            self._connection.close()
            self._connection = None

    def _look_at_transport(self, control: Control, of_streams: Streams) -> TransportSeen | None:
        try:
            state = control.state([event.stream for event in self._config.events])
            streams = {stream: control.stream_info(stream, state.epoch) for stream in sorted(state.stream_ends)}
            ends = {
                info["key"].removeprefix(self._keys.stream("", 1)): Position.parse(info["last_id"])
                for info in streams.values()
            }
            statuses, memory = control.sink_statuses(), of_streams.memory()
        except StatecastError as error:
            log.debug("no figures of Redis: %s", error)
            return None
        now = time.monotonic()
        self._published.note(now, state.published)
        return TransportSeen(
            state.published,
            tuple((stream, int(info["entries"]), int(info["bytes"])) for stream, info in streams.items()),
            tuple(self._sink_seen(status, state.published, ends, now) for status in statuses),
            memory,
        )

    def _sink_seen(self, status: dict[str, Any], published: LSN, ends: Mapping[str, Position], now: float) -> SinkSeen:
        name, alive_at = str(status["name"]), float(status.get("alive_at", 0.0))
        if (held := held_position(status, published, ends)) is None:
            return SinkSeen(name, alive_at, None, None)
        return SinkSeen(name, alive_at, max(0, published - held), self._published.behind_seconds(held, now))


def held_position(status: Mapping[str, Any], published: LSN, ends: Mapping[str, Position]) -> LSN | None:
    """Before which position a sink holds everything, by its status; None: it has not begun.

    Its `applied_lsn` moves when it has applied all there is, which under load may not happen for long; so where it
    stands in each stream counts too. `ends`: the last entry of each stream, not read before `published`; a stream that
    is not among them, as one of an earlier epoch, is held as far as its position says.
    """
    positions = {stream: Position.parse(text) for stream, text in status.get("streams", {}).items()}
    known = [LSN.parse(status["applied_lsn"])] if status.get("applied_lsn") else []
    if positions:
        known.append(
            min(
                published if stream in ends and position >= ends[stream] else position.commit_lsn
                for stream, position in positions.items()
            )
        )
    return max(known, default=None)


def _if_fresh(seen: Seen | None) -> Seen | None:
    return seen if seen is not None and time.monotonic() - seen.at < STALE_SECONDS else None
