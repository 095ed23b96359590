"""What a run of the benchmark comes to: ratios against Postgres' own tools, held against what the project promises."""

from __future__ import annotations

import os
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from rich.table import Table

from tests.benchmarks.measuring import Measurement
from tests.benchmarks.workloads import Workload

Results = Mapping[str, Sequence[Measurement]]
"""By contender, a measurement for each round."""

YARDSTICKS = {
    "pg_recvlogical": "pg_recvlogical",
    "bare libpq": "pg_recvlogical",
    "reader": "pg_recvlogical",
    "reader, shaped": "reader",
    "statecast": "subscription",
    "statecast, shaped": "statecast",
    "subscription": "subscription",
    "statecast, Unix sockets": "subscription, Unix sockets",
    "subscription, Unix sockets": "subscription, Unix sockets",
}
"""Contender -> whom it is held against; those that are not here are held against our reader."""
READER_BARS = {"bulk": 0.9}
SHAPED_BARS = {"bulk": 0.8, "single": 0.8}
"""With rename, mask and where, of the same without."""
BARS = {"bulk": 0.45, "single": 1.0, "spread": 0.75, "giant": 0.4, "wide": 0.4, "large": 0.4, "snapshot": 0.4}
"""The least ratio to the yardstick that a workload shall reach."""
RESIDENT_BAR_BYTES = 120e6
PERCENTILES = (0.5, 0.95, 0.99, 1.0)


@dataclass(frozen=True, slots=True)
class Ratio:
    """A contender's rate as a multiple of its yardstick's: the median, and the rounds' extremes."""

    middle: float
    least: float
    most: float

    def __str__(self) -> str:
        return f"{self.middle:.2f} ({self.least:.2f} to {self.most:.2f})"


def ratio(results: Results, name: str) -> Ratio | None:
    """None where the yardstick did not run."""
    yardstick = results.get(YARDSTICKS.get(name, "reader"))
    if not yardstick:
        return None
    own = results[name]
    by_round = [mine.rows_per_second / theirs.rows_per_second for mine, theirs in zip(own, yardstick, strict=True)]
    middle = _median_rate(own) / _median_rate(yardstick)
    return Ratio(middle, min(by_round), max(by_round))


def missed(workload: str, results: Results, share: float) -> list[str]:
    """Which bars are not reached; `share` below 1 leaves room where the run is short."""
    found = []
    held = {
        "reader": READER_BARS,
        "statecast": BARS,
        "reader, shaped": SHAPED_BARS,
        "statecast, shaped": SHAPED_BARS,
    }
    for name, bars in held.items():
        if name in results and workload in bars and (reached := ratio(results, name)) is not None:
            bar = bars[workload] * share
            if reached.middle < bar:
                found.append(f"{workload}: {name} reaches {reached} of its yardstick, expected {bar:.2f}")
            for process, size in _resident(results[name]).items():
                if size > RESIDENT_BAR_BYTES:
                    found.append(f"{workload}: {process} has {size / 1e6:.0f} MB resident, expected at most 120")
    return found


def table_of(workload: Workload, results: Results) -> Table:
    """The rates of one workload, or its waiting times."""
    load = ", ".join(f"{load:.1f}" for load in os.getloadavg())
    title = f"{workload.name}: {workload.rows:,} {workload.what} (load average {load})"
    table = Table(title=title, title_justify="left")
    waits = any(one.milliseconds for many in results.values() for one in many)
    rates = ("ms p50", "p95", "p99", "max") if waits else ("rows/s", "ratio (spread)")
    for heading in ("", *rates, "CPU s per million rows", "peak resident MB"):
        table.add_column(heading, justify="right" if heading else "left")
    for name, many in results.items():
        reached = ratio(results, name)
        figures = _percentiles(many) if waits else (f"{_median_rate(many):,.0f}", str(reached) if reached else "")
        table.add_row(
            name,
            *figures,
            "  ".join(f"{process} {seconds:.1f}" for process, seconds in sorted(_cpu(many).items())),
            "  ".join(f"{process} {size / 1e6:.0f}" for process, size in _resident(many).items()),
        )
    return table


def as_json(results: Results) -> dict[str, object]:
    """The same for programs."""
    return {name: _contender_json(results, name) for name in results}


def _contender_json(results: Results, name: str) -> dict[str, object]:
    many, reached = results[name], ratio(results, name)
    told: dict[str, object] = {
        "rows_per_second": [round(one.rows_per_second) for one in many],
        "ratio": None if reached is None else [reached.middle, reached.least, reached.most],
        "yardstick": YARDSTICKS.get(name, "reader"),
        "cpu_seconds_per_million_rows": _cpu(many),
        "peak_resident_bytes": _resident(many),
    }
    if any(one.milliseconds for one in many):
        told["milliseconds"] = {str(share): [_percentile(one, share) for one in many] for share in PERCENTILES}
    return told


def _median_rate(many: Sequence[Measurement]) -> float:
    return statistics.median([one.rows_per_second for one in many])


def _cpu(many: Sequence[Measurement]) -> dict[str, float]:
    processes = {process for one in many for process in one.cpu_seconds}
    return {
        process: statistics.median([one.cpu_seconds.get(process, 0.0) / one.rows * 1e6 for one in many])
        for process in processes
    }


def _resident(many: Sequence[Measurement]) -> dict[str, int]:
    """Of our own processes; a server's memory is mostly what it shares."""
    sizes = {process: max(one.resident_bytes.get(process, 0) for one in many) for process in ("reader", "sink")}
    return {process: size for process, size in sizes.items() if size}


def _percentile(one: Measurement, share: float) -> float:
    ordered = sorted(one.milliseconds)
    return ordered[min(len(ordered) - 1, int(len(ordered) * share))]


def _percentiles(many: Sequence[Measurement]) -> list[str]:
    """Of each round; told is the median over the rounds."""
    return [f"{statistics.median([_percentile(one, share) for one in many]):.1f}" for share in PERCENTILES]
