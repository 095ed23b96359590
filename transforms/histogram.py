"""How often something took how long, counted into buckets."""

from __future__ import annotations

from bisect import bisect_left
from itertools import accumulate

LATENCY_SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 300.0)
"""Bounds for everything between a loopback round trip and a batch that waited for a lock."""


class Histogram:
    """Durations in seconds. One thread observes, others may read: a reading may lag an observation, never tear."""

    def __init__(self, bounds: tuple[float, ...] = LATENCY_SECONDS) -> None:
        self.bounds = bounds
        self.sum_seconds = 0.0
        self._counts = [0] * (len(bounds) + 1)

    def observe(self, seconds: float) -> None:
        """Count one duration; below zero (two clocks that differ) it counts as none."""
        seconds = max(0.0, seconds)
        self._counts[bisect_left(self.bounds, seconds)] += 1
        self.sum_seconds += seconds

    def cumulative(self) -> list[int]:
        """How many took at most each bound, and last how many there were at all."""
        return list(accumulate(self._counts.copy()))
