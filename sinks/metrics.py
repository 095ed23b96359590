"""A sink's figures as Prometheus metrics, read off when they are asked for. deploy/README.md has them as a table."""

from __future__ import annotations

import time
from collections.abc import Iterator
from importlib.metadata import version

from prometheus_client.core import Metric
from prometheus_client.registry import Collector

from sinks.config import SinkConfig
from sinks.status import STATES
from sinks.worker import Worker
from transforms.metric_families import Families


class SinkCollector(Collector):
    """One sink's worker. Labels are names of the pipeline's parts and classes of errors, never values."""

    def __init__(self, worker: Worker, config: SinkConfig) -> None:
        self._worker = worker
        self._tables = {label: str(table) for label, table in config.tables.items()}
        self._families = Families({"pipeline": config.pipeline.name, "sink": config.name})

    def describe(self) -> Iterator[Metric]:
        """Nothing in advance: what there is depends on how far the sink is."""
        return iter(())

    def collect(self) -> Iterator[Metric]:
        """Everything that is known now; what is not known is left out, never zero."""
        yield self._families.gauge(
            "statecast_build_info", "Version of statecast.", {version("statecast"): 1}, "version"
        )
        yield from self._state()
        yield from self._streams()
        yield from self._applying()
        yield from self._families.sessions(
            "statecast_sink", self._worker.counters.sessions, self._worker.counters.failures
        )

    def _state(self) -> Iterator[Metric]:
        status = self._worker.status
        states = {state: float(state == status.state) for state in STATES}
        yield self._families.gauge("statecast_sink_state", "1 for the state that the sink is in.", states, "state")
        yield self._families.gauge(
            "statecast_sink_state_since_timestamp_seconds", "When the sink took its state.", status.since
        )

    def _streams(self) -> Iterator[Metric]:
        now, streams = time.time(), self._worker.counters.streams.copy()
        lag_seconds = {name: stream.lag_seconds(now) for name, stream in streams.items()}
        yield self._families.gauge(
            "statecast_sink_lag_bytes",
            "Published log that is not applied yet.",
            {name: float(stream.lag_bytes) for name, stream in streams.items()},
            "stream",
        )
        yield self._families.gauge(
            "statecast_sink_lag_seconds",
            "For how long the replicas may have been behind.",
            {name: seconds for name, seconds in lag_seconds.items() if seconds is not None},
            "stream",
        )
        yield self._families.gauge(
            "statecast_sink_applied_position_bytes",
            "Position in the log before which the replicas hold all of the stream.",
            {name: float(stream.applied) for name, stream in streams.items()},
            "stream",
        )

    def _applying(self) -> Iterator[Metric]:
        counters = self._worker.counters
        rows = {(self._tables[event], kind): count for (event, kind), count in counters.rows.copy().items()}
        yield self._families.counter(
            "statecast_sink_rows",
            "Rows written, after changes of the same key in a batch were merged.",
            rows,
            ("table", "kind"),
        )
        yield self._families.counter("statecast_sink_batches", "Batches committed.", counters.batches)
        yield self._families.histogram(
            "statecast_sink_apply_seconds", "From the reading of a batch to its commit.", counters.apply_seconds
        )
        yield self._families.histogram(
            "statecast_sink_delay_seconds",
            "From a batch's last commit at the source to its commit here, by two clocks.",
            counters.delay_seconds,
        )
        yield self._families.counter("statecast_sink_parked_events", "Events that were parked.", counters.parked)
        yield self._families.gauge(
            "statecast_sink_dead_events", "Events that are parked now.", self._worker.status.dead
        )
