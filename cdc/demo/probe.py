"""Measures how long a change takes to a replica: a row is updated at the source, and looked for in the replica.

The clock starts before the update is sent and stops when a query sees it, so both are included. Never too little:
started at the reply, it would miss what happens while this thread waits for its turn to read that reply.
"""

from __future__ import annotations

import threading
import time
from dataclasses import dataclass
from typing import Any

import psycopg

_INTERVAL_SECONDS = 0.2
_FIRST_LOOK_SECONDS = 0.001
_SLOWEST_LOOK_SECONDS = 0.05


@dataclass(frozen=True, slots=True)
class Sample:
    """One change that arrived."""

    sent_at: float
    """By the monotonic clock."""
    seconds: float


class Probe(threading.Thread):
    """Updates one customer again and again, each time as soon as the replica shows the last update."""

    def __init__(self, sink: str, source_dsn: str, replica_dsn: str, replica_table: str, customer: int) -> None:
        """`replica_table` has columns `id` and `rev`; it may not be there yet."""
        super().__init__(name=f"probe of {sink}", daemon=True)
        self.sink = sink
        self.samples: list[Sample] = []
        self.updates = 0
        self.failure: Exception | None = None
        self._source_dsn, self._replica_dsn = source_dsn, replica_dsn
        self._query = f"SELECT rev FROM {replica_table} WHERE id = {customer}"
        self._update = f"UPDATE customers SET rev = rev + 1 WHERE id = {customer} RETURNING rev"
        self._stop_event = threading.Event()
        self._waiting_since: float | None = None

    def stop(self) -> None:
        """Update no more. Returns when the last update is committed."""
        self._stop_event.set()
        if self.is_alive():
            self.join()

    @property
    def latest_seconds(self) -> float | None:
        """The newest latency, or how long the replica has been waited for where that is more."""
        latest = self.samples[-1].seconds if self.samples else None
        if (since := self._waiting_since) is not None:
            return max(latest or 0.0, time.monotonic() - since)
        return latest

    def run(self) -> None:
        try:
            with (
                psycopg.connect(self._source_dsn, autocommit=True) as source,
                psycopg.connect(self._replica_dsn, autocommit=True) as replica,
            ):
                while not self._stop_event.is_set():
                    self._measure(source, replica)
                    self._stop_event.wait(_INTERVAL_SECONDS)
        except Exception as error:
            self.failure = error

    def _measure(self, source: psycopg.Connection[Any], replica: psycopg.Connection[Any]) -> None:
        sent_at = self._waiting_since = time.monotonic()
        row = source.execute(self._update.encode()).fetchone()
        assert row is not None
        self.updates += 1
        while self._revision_at(replica) < row[0]:
            waited = time.monotonic() - sent_at
            if self._stop_event.wait(min(max(_FIRST_LOOK_SECONDS, waited / 10), _SLOWEST_LOOK_SECONDS)):
                break
        else:
            self.samples.append(Sample(sent_at, time.monotonic() - sent_at))
        self._waiting_since = None

    def _revision_at(self, replica: psycopg.Connection[Any]) -> int:
        try:
            row = replica.execute(self._query.encode()).fetchone()
        except psycopg.errors.UndefinedTable:
            return 0
        return row[0] if row else 0


def percentile(samples: list[float], share: float) -> float:
    """The value that this share of the samples does not exceed. `samples` is not empty."""
    ordered = sorted(samples)
    return ordered[min(len(ordered) - 1, int(len(ordered) * share))]
