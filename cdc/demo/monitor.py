"""Looks at the running pipeline from outside: Redis, the source's log, and the checkpoints in the replicas."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Mapping, Sequence
from contextlib import ExitStack, closing
from dataclasses import replace
from types import TracebackType
from typing import Any, Self, cast

import psycopg
import redis

from cdc.control import Control
from cdc.demo import shop
from cdc.demo.figures import Entry, Figures, SinkFigures, StreamFigures
from cdc.demo.load import Load
from cdc.demo.probe import Probe
from transforms.keys import Keys
from transforms.position import LSN, START, Position

_RATE_WINDOW_SECONDS = 2.0
_NEWEST_STAYS_SECONDS = 1.5
_TROUBLE = ("reconnecting", "paused", "stopped")
_HISTORY = 100
"""Points kept for a curve."""


class Monitor:
    """A context manager that holds its connections. For one thread."""

    def __init__(
        self, source_dsn: str, redis_url: str, replica_dsns: Mapping[str, str], load: Load, probes: Sequence[Probe]
    ) -> None:
        """`replica_dsns` by sink; each sink has a probe."""
        self._addresses = source_dsn, redis_url, replica_dsns
        self._load = load
        self._probes = probes
        self._events = shop.events()
        self._wanted = {
            probe.sink: {copy.event for copy in shop.copies() if copy.sink == probe.sink} for probe in probes
        }
        self._keys = Keys("shop")
        self._stack = ExitStack()
        self._counts: deque[tuple[float, list[int]]] = deque()
        self._change_history: deque[float] = deque(maxlen=_HISTORY)
        self._newest: Entry | None = None
        self._newest_at = 0.0
        self._turn = 0
        self._snapshot_end: LSN | None = None
        self._settled_at: dict[str, float] = {}

    def __enter__(self) -> Self:
        source_dsn, redis_url, replica_dsns = self._addresses
        self._client = self._stack.enter_context(closing(redis.Redis.from_url(redis_url)))
        self._control = Control(self._client, self._keys)
        self._source = self._stack.enter_context(psycopg.connect(source_dsn, autocommit=True))
        self._replicas = {
            sink: self._stack.enter_context(psycopg.connect(dsn, autocommit=True)) for sink, dsn in replica_dsns.items()
        }
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._stack.close()

    def flushed_position(self) -> LSN:
        """The end of the source's log as far as it is on disk: everything committed is.

        Not the insert position: at the end of a page that one lies behind the next page's header, where nothing
        else in Postgres gets before more is written.
        """
        row = self._source.execute("SELECT pg_current_wal_flush_lsn()::text").fetchone()
        assert row is not None
        return LSN.parse(row[0])

    def look(self) -> Figures:
        """The figures of this moment."""
        written = self.flushed_position()
        meta = cast(bytes | None, self._client.hget(self._keys.meta, "published"))
        published = LSN.parse(meta.decode()) if meta else None
        entries, ends = self._streams()  # behind `published`: who has read up to these ends has everything up to it
        runs = {run.event.partition(".")[0]: run for run in self._control.runs()}
        changes = self._load.rows + sum(probe.updates for probe in self._probes)
        change_rate, *rates = self._rates([changes, *entries])
        self._change_history.append(change_rate)
        statuses = [{"name": "reader"} | (self._control.read_status() or {}), *self._control.sink_statuses()]
        states = {str(status["name"]): str(status.get("state", "starting")) for status in statuses}
        trouble = [
            f"{status['name']} {status['state']}: {status.get('reason')}"
            for status in statuses
            if status.get("state") in _TROUBLE
        ]
        sinks = [self._sink(probe, states, written, published, ends) for probe in self._probes]
        figures = Figures(
            phase="",
            trouble="; ".join(trouble) or None,
            changes=changes,
            change_rate=change_rate,
            change_history=self._change_history,
            published=published,
            behind_bytes=None if published is None else max(0, written - published),
            streams=[
                StreamFigures(event, count, rate, runs.get(event))
                for event, count, rate in zip(self._events, entries, rates, strict=True)
            ],
            sinks=sinks,
            newest=self._newest_entry(),
        )
        self._notice_settled(figures)
        return replace(figures, phase=self._phase(figures))

    def latencies_after_snapshot(self) -> list[float]:
        """Seconds from commit to replica, of changes made after a sink had applied the initial snapshot."""
        return [
            sample.seconds
            for probe in self._probes
            for sample in probe.samples
            if sample.sent_at > self._settled_at.get(probe.sink, float("inf"))
        ]

    # --- parts -------------------------------------------------------------------------------------------------------

    def _streams(self) -> tuple[list[int], dict[str, Position]]:
        """How many entries each stream has had, and where it ends."""
        pipe = self._client.pipeline(transaction=False)
        for event in self._events:
            pipe.xinfo_stream(self._keys.stream(event, 1))
        found = pipe.execute(raise_on_error=False)  # a stream may not be there yet
        infos: list[dict[str, Any]] = [info if isinstance(info, dict) else {} for info in found]
        ends = [info.get("last-generated-id", str(START).encode()) for info in infos]
        positions = [Position.parse(end.decode()) for end in ends]
        return [info.get("entries-added", 0) for info in infos], dict(zip(self._events, positions, strict=True))

    def _rates(self, counts: list[int]) -> list[float]:
        now = time.monotonic()
        self._counts.append((now, counts))
        while len(self._counts) > 2 and now - self._counts[0][0] > _RATE_WINDOW_SECONDS:
            self._counts.popleft()
        then, before = self._counts[0]
        return [(count - old) / max(now - then, 0.05) for count, old in zip(counts, before, strict=True)]

    def _sink(
        self,
        probe: Probe,
        states: Mapping[str, str],
        written: LSN,
        published: LSN | None,
        ends: Mapping[str, Position],
    ) -> SinkFigures:
        applied = None if published is None else self._applied(probe.sink, published, ends)
        return SinkFigures(
            name=probe.sink,
            state=states.get(probe.sink, "starting"),
            applied=applied,
            behind_bytes=None if applied is None else max(0, written - applied),
            latency_seconds=probe.latest_seconds,
            latency_history=[sample.seconds for sample in probe.samples[-_HISTORY:]],
        )

    def _applied(self, sink: str, published: LSN, ends: Mapping[str, Position]) -> LSN | None:
        """What the checkpoints in the replica say; the status that the sink writes is up to a second old."""
        query = b"SELECT stream, commit_lsn::text, ordinal FROM cdc.checkpoint WHERE pipeline = 'shop' AND sink = %s"
        try:
            rows = self._replicas[sink].execute(query, (sink,)).fetchall()
        except psycopg.errors.UndefinedTable:
            return None
        positions = {stream: Position(LSN.parse(commit_lsn), ordinal) for stream, commit_lsn, ordinal in rows}
        if not positions.keys() >= self._wanted[sink]:
            return None
        return min(published if at >= ends[stream] else at.commit_lsn for stream, at in positions.items())

    def _notice_settled(self, figures: Figures) -> None:
        if self._snapshot_end is None and figures.snapshot_complete:
            self._snapshot_end = figures.published
        if (end := self._snapshot_end) is not None:
            for sink in figures.sinks:
                if sink.applied is not None and sink.applied >= end:
                    self._settled_at.setdefault(sink.name, time.monotonic())

    def _phase(self, figures: Figures) -> str:
        if not figures.snapshot_complete:
            return "initial snapshot under live load"
        if len(self._settled_at) < len(self._probes):
            return "the replicas take in the snapshot"
        if self._load.running:
            return "streaming live changes"
        return "the replicas catch up" if any(sink.behind_bytes for sink in figures.sinks) else "everything has arrived"

    def _newest_entry(self) -> Entry | None:
        """The newest entry of one stream, then of the next; each stays for long enough to be read."""
        if time.monotonic() - self._newest_at > _NEWEST_STAYS_SECONDS:
            stream = self._keys.stream(self._events[self._turn % len(self._events)], 1)
            self._turn += 1
            for raw_id, raw_fields in cast(list[Any], self._client.xrevrange(stream, count=5)):
                fields = {name.decode(): value.decode() for name, value in raw_fields.items()}
                if fields["op"] != "mark":
                    self._newest, self._newest_at = Entry(stream, raw_id.decode(), fields), time.monotonic()
                    break
        return self._newest
