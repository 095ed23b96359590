"""Seconds, CPU and memory of the processes that take part in a measurement."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field

import psutil


@dataclass
class Measurement:
    """What one contender did in one round."""

    rows: int
    seconds: float = 0.0
    cpu_seconds: dict[str, float] = field(default_factory=dict)
    """By process name."""
    resident_bytes: dict[str, int] = field(default_factory=dict)
    """The peak, by process name."""

    milliseconds: list[float] = field(default_factory=list)
    """Of each row, where that is measured: from the commit's return to its being seen in the replica."""

    @property
    def rows_per_second(self) -> float:
        return self.rows / self.seconds


@contextmanager
def measured(rows: int, processes: Callable[[], dict[str, int]]) -> Iterator[Measurement]:
    """Measure the block. `processes` gives name -> PID of those that are there now; it is asked now and then."""
    result = Measurement(rows)
    stop = threading.Event()
    first: dict[int, float] = {}
    names: dict[int, str] = {}
    last: dict[int, float] = {}

    def look() -> None:
        for name, pid in processes().items():
            with suppress(psutil.Error):
                process = psutil.Process(pid)
                used = process.cpu_times()
                cpu = used.user + used.system
                first.setdefault(pid, cpu if pid in known else 0.0)
                names[pid], last[pid] = name, cpu
                resident = process.memory_info().rss
                result.resident_bytes[name] = max(result.resident_bytes.get(name, 0), resident)

    known = set(processes().values())
    look()

    def watch() -> None:
        while not stop.wait(0.25):
            look()

    watcher = threading.Thread(target=watch)
    watcher.start()
    began = time.monotonic()
    try:
        yield result
    finally:
        result.seconds = time.monotonic() - began
        stop.set()
        watcher.join()
        look()
    for pid, name in names.items():
        result.cpu_seconds[name] = result.cpu_seconds.get(name, 0.0) + last[pid] - first[pid]
