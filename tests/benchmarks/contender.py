"""One who is measured. Each has its slot before the load, so that all of them work through the same log.

`prepare` brings a contender to where it waits for the load, `run` works through it to the end.
"""

from __future__ import annotations

import re
from abc import ABC, abstractmethod

from tests.benchmarks.bench import Bench
from tests.benchmarks.measuring import Measurement
from tests.benchmarks.workloads import Workload
from transforms.position import LSN


class Contender(ABC):
    """One way through the log."""

    name: str
    unix = False
    """Whether it reaches the servers over Unix sockets instead of TCP loopback."""

    def __init__(self, bench: Bench, workload: Workload, number: int) -> None:
        self._servers = bench
        self.workload = workload
        self.slot = re.sub("[^a-z0-9]+", "_", f"{self.name}_{number}")

    @property
    def bench(self) -> Bench:
        """The servers, as this contender reaches them."""
        return self._servers.over_unix_sockets() if self.unix else self._servers

    @abstractmethod
    def prepare(self) -> None:
        """Make the slot, and whatever must be there before the load."""

    @abstractmethod
    def run(self, end: LSN) -> Measurement:
        """Work through the log up to `end`."""

    @abstractmethod
    def close(self) -> None:
        """Remove the slot and the processes."""

    def drop_slot(self) -> None:
        """End the walsender, which may not have noticed yet that its client is gone, and drop the slot."""
        for action in ("pg_terminate_backend(active_pid, 10000)", "pg_drop_replication_slot(slot_name)"):
            self.bench.execute(
                self.bench.source_dsn(), f"SELECT {action} FROM pg_replication_slots WHERE slot_name = '{self.slot}'"
            )
