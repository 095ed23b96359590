"""Figures in the shapes of Prometheus' data model. Both edges read their counters off into these at a scrape.

The only file of this room that knows the metrics library, of which it uses the values and nothing that talks.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily, Metric

from transforms.failures import Failures
from transforms.histogram import Histogram

Labels = str | tuple[str, ...] | None
Values = float | Mapping[str, float] | Mapping[tuple[str, str], float] | Mapping[tuple[str, str, str], float] | None
"""One number, one for each value of a label (or of several labels together), or None: it is not known."""


class Families:
    """Makes families whose samples all have the same first labels (`{"pipeline": "shop"}`)."""

    def __init__(self, common: Mapping[str, str]) -> None:
        self._names = list(common)
        self._values = list(common.values())

    def gauge(self, name: str, help_: str, values: Values, labels: Labels = None) -> Metric:
        """Numbers that rise and fall."""
        return self._filled(GaugeMetricFamily(name, help_, labels=self._names + _several(labels)), values)

    def counter(self, name: str, help_: str, values: Values, labels: Labels = None) -> Metric:
        """Numbers that only rise; `_total` is put behind the name."""
        return self._filled(CounterMetricFamily(name, help_, labels=self._names + _several(labels)), values)

    def histogram(self, name: str, help_: str, durations: Histogram) -> Metric:
        """Durations in their buckets."""
        family = HistogramMetricFamily(name, help_, labels=self._names)
        bounds = [*map(str, durations.bounds), "+Inf"]
        buckets = list(zip(bounds, durations.cumulative(), strict=True))
        family.add_metric(self._values, buckets, durations.sum_seconds)
        return family

    def sessions(self, prefix: str, sessions: int, failures: Failures) -> Iterator[Metric]:
        """How often a process began anew, and why."""
        yield self.counter(f"{prefix}_reconnects", "Sessions opened after the first.", max(0, sessions - 1))
        yield self.counter(
            f"{prefix}_failures", "What ended a session or an attempt to open one.", failures.counts, "error"
        )
        yield self.gauge(
            f"{prefix}_last_failure_timestamp_seconds",
            "When an error of this class happened last.",
            failures.last_at.copy(),
            "error",
        )

    def _filled(self, family: GaugeMetricFamily | CounterMetricFamily, values: Values) -> Metric:
        if isinstance(values, Mapping):
            for key, value in dict(values).items():
                family.add_metric(self._values + _several(key), value)
        elif values is not None:
            family.add_metric(self._values, values)
        return family


def _several(labels: Labels) -> list[str]:
    return [labels] if isinstance(labels, str) else list(labels or ())
