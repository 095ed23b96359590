"""A reader's figures as Prometheus metrics, read off when they are asked for. deploy/README.md has them as a table."""

from __future__ import annotations

import time
from collections.abc import Iterator
from importlib.metadata import version

from prometheus_client.core import Metric
from prometheus_client.registry import Collector

from cdc.figures import STATES, Figures
from cdc.pipeline import Reader
from cdc.retention.metrics import retention_metrics
from cdc.source.slot import Slot
from cdc.status import seconds_left
from cdc.watch import Watch
from transforms.metric_families import Families
from transforms.position import LSN

GROWTH_SECONDS = 300.0
"""Over how long the growth of the source's log is taken."""
WAL_STATUSES = ("reserved", "extended", "unreserved", "lost")


class ReaderCollector(Collector):
    """One reader and its watch. Labels are names of the pipeline's parts and classes of errors, never values."""

    def __init__(self, pipeline: str, reader: Reader, watch: Watch) -> None:
        self._families = Families({"pipeline": pipeline})
        self._reader = reader
        self._watch = watch

    def describe(self) -> Iterator[Metric]:
        """Nothing in advance: what there is depends on how far the reader is."""
        return iter(())

    def collect(self) -> Iterator[Metric]:
        """Everything that is known now; what is not known is left out, never zero."""
        yield self._families.gauge(
            "statecast_build_info", "Version of statecast.", {version("statecast"): 1}, "version"
        )
        yield from self._state(self._reader.latest)
        yield from self._events()
        yield from self._progress()
        yield from self._publishing()
        yield from self._families.sessions(
            "statecast_reader", self._reader.counters.sessions, self._reader.counters.failures
        )
        yield from self._snapshots()
        yield from self._source()
        yield from self._streams()
        transport = self._watch.transport
        yield from retention_metrics(
            self._families, self._reader.retention, None if transport is None else transport.memory
        )

    # --- the reader --------------------------------------------------------------------------------------------------

    def _state(self, figures: Figures) -> Iterator[Metric]:
        states = {state: float(state == figures.state) for state in STATES}
        yield self._families.gauge("statecast_reader_state", "1 for the state that the reader is in.", states, "state")
        yield self._families.gauge(
            "statecast_reader_state_since_timestamp_seconds", "When the reader took its state.", figures.since
        )

    def _events(self) -> Iterator[Metric]:
        stopped = {event: float(is_stopped) for event, is_stopped in self._reader.counters.events.items()}
        yield self._families.gauge(
            "statecast_reader_event_stopped",
            "1 for an event that is stopped alone, since its table has changed; else 0.",
            stopped,
            "event",
        )

    def _progress(self) -> Iterator[Metric]:
        counters, now = self._reader.counters, time.monotonic()
        published = self.published
        yield self._families.gauge(
            "statecast_reader_published_position_bytes",
            "Position in the log up to which every stream has everything.",
            published,
        )
        yield self._families.gauge(
            "statecast_reader_confirmed_position_bytes", "Position last confirmed to the slot.", counters.confirmed
        )
        sent_at = counters.confirm_sent_at
        yield self._families.gauge(
            "statecast_reader_confirm_age_seconds",
            "Time since the slot was last told a position.",
            None if sent_at is None else now - sent_at,
        )
        source = self._watch.source
        both = None if source is None or published is None else (source.flushed, published)
        yield self._families.gauge(
            "statecast_reader_lag_bytes",
            "Log that is written but not published yet.",
            None if both is None else max(0, both[0] - both[1]),
        )
        yield self._families.gauge(
            "statecast_reader_lag_seconds",
            "For how long there has been log that is not published yet.",
            None if both is None else self._lag_seconds(both[1], now),
        )

    @property
    def published(self) -> LSN | None:
        """The further one of what this process has published and what Redis says, which another reader may have."""
        seen = self._watch.transport
        known = [self._reader.counters.published, None if seen is None else seen.published]
        return max((lsn for lsn in known if lsn is not None), default=None)

    def _lag_seconds(self, published: LSN, now: float) -> float:
        delivered_at = self._reader.latest.delivered_at
        newest_age = None if delivered_at is None else time.time() - delivered_at
        return self._watch.written.lag_seconds(published, now, newest_age)

    def _publishing(self) -> Iterator[Metric]:
        counters = self._reader.counters
        yield self._families.counter("statecast_reader_entries", "Entries appended.", counters.entries, "stream")
        yield self._families.counter(
            "statecast_reader_repeated_entries",
            "Entries that their stream already held, sent again after a reconnect.",
            counters.repeats,
            "stream",
        )
        yield self._families.counter("statecast_reader_batches", "Batches that Redis has answered.", counters.batches)
        yield self._families.counter("statecast_reader_sent_bytes", "Bytes sent to Redis.", counters.sent_bytes)
        yield self._families.histogram(
            "statecast_reader_publish_seconds", "From the sending of a batch to its reply.", counters.publish_seconds
        )

    def _snapshots(self) -> Iterator[Metric]:
        runs, at_work = self._reader.counters.runs.copy(), self._reader.latest.state == "snapshotting"
        yield self._families.gauge(
            "statecast_reader_snapshot_waiting",
            "1 while a snapshot waits for transactions of others to end.",
            float(self._reader.latest.waiting_for is not None),
        )
        yield self._families.gauge(
            "statecast_reader_snapshot_running",
            "1 while a snapshot of the event is in hand.",
            {event: float(at_work and run.state == "running") for event, run in runs.items()},
            "event",
        )
        yield self._families.gauge(
            "statecast_reader_snapshot_rows",
            "Rows published by the newest snapshot.",
            {event: run.rows for event, run in runs.items()},
            "event",
        )
        yield self._families.gauge(
            "statecast_reader_snapshot_ratio",
            "Share of the table that the newest snapshot has published, by the planner's estimate.",
            {event: run.share for event, run in runs.items()},
            "event",
        )

        yield self._families.gauge(
            "statecast_reader_parked_rows",
            "Rows that are not published, since their event's hook failed on them.",
            dict(self._reader.latest.parked),
            "event",
        )

    # --- both servers ------------------------------------------------------------------------------------------------

    def _source(self) -> Iterator[Metric]:
        source = self._watch.source
        yield self._families.gauge("statecast_source_up", "1 when the source answers.", float(source is not None))
        if source is None:
            return
        yield self._families.gauge("statecast_source_position_bytes", "The end of the source's log.", source.flushed)
        if source.slot is not None:
            yield from self._slot(source.slot)

    def _slot(self, slot: Slot) -> Iterator[Metric]:
        limit = None if slot.safe_bytes is None else slot.retained_bytes + slot.safe_bytes
        statuses = {status: float(status == slot.wal_status) for status in WAL_STATUSES}
        yield self._families.gauge(
            "statecast_slot_active", "1 while somebody reads the slot.", float(slot.active_pid is not None)
        )
        yield self._families.gauge(
            "statecast_slot_confirmed_position_bytes", "Position the slot may forget.", slot.confirmed
        )
        yield self._families.gauge(
            "statecast_slot_retained_bytes", "Log that the slot holds back.", slot.retained_bytes
        )
        yield self._families.gauge(
            "statecast_slot_limit_bytes", "Log that the slot may hold back, where limited.", limit
        )
        yield self._families.gauge(
            "statecast_slot_safe_bytes", "Log until the slot is lost, where limited.", slot.safe_bytes
        )
        growth = self._watch.written.growth(time.monotonic(), GROWTH_SECONDS)
        yield self._families.gauge(
            "statecast_slot_left_seconds",
            "Time until the slot is lost if it stood still and the log grew as in the last minutes, where limited.",
            seconds_left(slot.safe_bytes, growth),
        )
        yield self._families.gauge("statecast_slot_wal_status", "1 for the slot's wal_status.", statuses, "status")

    def _streams(self) -> Iterator[Metric]:
        seen = self._watch.transport
        yield self._families.gauge("statecast_transport_up", "1 when Redis answers.", float(seen is not None))
        if seen is None:
            return
        entries = {stream: count for stream, count, _ in seen.streams}
        sizes = {stream: size for stream, _, size in seen.streams}
        yield self._families.gauge("statecast_stream_entries", "Entries in the stream.", entries, "stream")
        yield self._families.gauge("statecast_stream_size_bytes", "Redis' memory for the stream.", sizes, "stream")
        yield self._families.gauge(
            "statecast_consumer_lag_bytes",
            "Published log that the sink does not hold yet, by what it last wrote.",
            {sink.name: sink.lag_bytes for sink in seen.sinks if sink.lag_bytes is not None},
            "sink",
        )
        yield self._families.gauge(
            "statecast_consumer_lag_seconds",
            "For how long there has been published log that the sink does not hold, by what it last wrote.",
            {sink.name: sink.lag_seconds for sink in seen.sinks if sink.lag_seconds is not None},
            "sink",
        )
        yield self._families.gauge(
            "statecast_consumer_seen_timestamp_seconds",
            "When the sink last wrote how far it is.",
            {sink.name: sink.alive_at for sink in seen.sinks},
            "sink",
        )
