"""The workload `latency`: from a commit's return at the source to the moment the row is seen in the replica.

Several writers share the rate; each has ids of its own, so that the newest id of each that is visible tells which of
its commits have arrived. The replica is looked at every LOOK_SECONDS, which is part of what is measured.
"""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass

import psycopg

from tests.benchmarks.bench import Bench, wait
from tests.benchmarks.contender import Contender
from tests.benchmarks.measuring import Measurement, measured
from tests.benchmarks.product import EndToEnd
from tests.benchmarks.subscription import Subscription
from transforms.position import LSN

RATE = 1_000.0
"""Commits a second."""
WRITERS = 4
IDS_APART = 10_000_000
LOOK_SECONDS = 0.002


@dataclass
class Replica:
    """What is looked at."""

    dsn: str
    table: str


def measure(contender: Contender, replica: Replica, pids: Callable[[], dict[str, int]]) -> Measurement:
    """Write for the workload's time while the replica is watched."""
    rows = contender.workload.rows
    seen: list[list[tuple[int, int]]] = [[] for _ in range(WRITERS)]
    with measured(rows, pids) as result:
        writers = [_writer(contender.bench, number, rows) for number in range(WRITERS)]
        _watch(replica, writers, seen, rows // WRITERS)
    waited: list[float] = []
    for number, writer in enumerate(writers):
        out, _ = writer.communicate()
        returned = [int(line) for line in out.split()]
        position = 0
        for count, at in seen[number]:
            waited += [(at - moment) / 1e6 for moment in returned[position:count]]
            position = count
        assert position == len(returned), f"{len(returned) - position} commits were not seen in the replica"
    result.milliseconds = waited
    return result


def _settle(bench: Bench, reached: Callable[[str], bool]) -> None:
    """Wait until what others left in the log is behind us."""
    [(end,)] = bench.execute(bench.source_dsn(), "SELECT pg_current_wal_flush_lsn()::text")
    wait(lambda: reached(str(end)))


def _writer(bench: Bench, number: int, rows: int) -> subprocess.Popen[str]:
    seconds = rows / RATE
    arguments = [bench.source_dsn(), str(number * IDS_APART + 1), str(RATE / WRITERS), str(seconds)]
    command = [sys.executable, "-m", "tests.benchmarks.commit_rate", *arguments]
    return subprocess.Popen(command, stdout=subprocess.PIPE, text=True)


def _watch(
    replica: Replica, writers: list[subprocess.Popen[str]], seen: list[list[tuple[int, int]]], expected: int
) -> None:
    """Note for each writer how many of its rows are there, and since when (monotonic nanoseconds)."""
    newest = ", ".join(
        f"(SELECT max(id) FROM {replica.table} WHERE id BETWEEN {n * IDS_APART + 1} AND {(n + 1) * IDS_APART})"
        for n in range(WRITERS)
    )
    counts = [0] * WRITERS
    deadline = time.monotonic() + 120 + expected * WRITERS / RATE
    with psycopg.connect(replica.dsn, autocommit=True) as connection:
        while min(counts) < expected:
            row = connection.execute(f"SELECT {newest}".encode(), prepare=True).fetchone()
            at = time.monotonic_ns()
            assert row is not None
            for number, id_ in enumerate(row):
                count = (id_ or number * IDS_APART) - number * IDS_APART
                if count > counts[number]:
                    counts[number] = count
                    seen[number].append((count, at))
            if time.monotonic() > deadline or any(writer.poll() for writer in writers):
                raise TimeoutError(f"of {expected} rows a writer, {counts} were seen in the replica")
            time.sleep(LOOK_SECONDS)


class Latency(EndToEnd):
    """statecast."""

    def run(self, end: LSN) -> Measurement:
        self.start()
        applied = f"SELECT applied_lsn >= '%s' FROM cdc.checkpoint WHERE pipeline = '{self.slot}'"
        target = self.bench.target_dsn()
        _settle(self.bench, lambda end: self.bench.execute(target, applied.replace("%s", end)) == [(True,)])
        try:
            return measure(self, Replica(self.bench.target_dsn(), f"replica.{self.slot}"), self.pids)
        finally:
            self.stop()
            self.bench.execute(self.bench.source_dsn(), "DELETE FROM bench")


class SubscriptionLatency(Subscription):
    """Postgres' own subscription."""

    def run(self, end: LSN) -> Measurement:
        target = self.bench.target.dsn(self.database)
        self.bench.execute(target, f"ALTER SUBSCRIPTION {self.slot} ENABLE")
        wait(lambda: bool(self.bench.walsender()))
        replayed = "SELECT replay_lsn >= '%s' FROM pg_stat_replication"
        source = self.bench.source_dsn()
        _settle(self.bench, lambda end: self.bench.execute(source, replayed.replace("%s", end)) == [(True,)])
        try:
            return measure(self, Replica(target, "public.bench"), self.pids)
        finally:
            self.bench.execute(target, f"ALTER SUBSCRIPTION {self.slot} DISABLE")
            self.bench.execute(self.bench.source_dsn(), "DELETE FROM bench")


LATENCY_CONTENDERS = (Latency, SubscriptionLatency)
