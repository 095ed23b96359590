"""A package that is measured beside ours, installed into an environment of its own and run as one process.

The servers and the measuring are those of the other contenders, and so is the clock: it starts when the peer streams
from its slot. A peer is at the end when its stream has as many entries as the load has row changes.
"""

from __future__ import annotations

import subprocess
import sys
import time
from abc import abstractmethod
from collections.abc import Callable
from pathlib import Path

import psutil
import redis

from tests.benchmarks.bench import Bench, named
from tests.benchmarks.contender import Contender
from tests.benchmarks.measuring import Measurement, measured
from tests.benchmarks.workloads import Workload
from tests.processes import Command
from transforms.position import LSN

HERE = Path(__file__).parent
"""Where the programs are that run in a peer's environment."""
_INSTALLATIONS = HERE.parents[1] / ".bench"
_DEADLINE_SECONDS = 300.0


class PeerFailed(Exception):
    """A peer could not be installed, ended, or did not get to the end of the load."""


class Peer(Contender):
    """A package in an environment of its own, run as one process."""

    package: str
    version: str

    def __init__(self, bench: Bench, workload: Workload, number: int) -> None:
        super().__init__(bench, workload, number)
        self.directory = bench.directory / self.slot
        self.redis = redis.Redis.from_url(bench.transport.url())

    @classmethod
    def missing(cls) -> str | None:
        """What this machine lacks to run it, as a sentence; None when it can be run."""
        return None

    @property
    @abstractmethod
    def stream(self) -> str:
        """The key of the stream it publishes to."""

    @abstractmethod
    def command(self, installation: Path) -> list[str]:
        """Write its configuration into `directory`; returns the command that runs it until it is ended."""

    def prepare(self) -> None:
        self.directory.mkdir()
        command = self.command(installed(self.package, self.version))
        self.process = Command(command, {}, self.directory / "peer.log")
        self.bench.execute(
            self.bench.source_dsn(), f"SELECT pg_create_logical_replication_slot('{self.slot}', 'pgoutput')"
        )

    def run(self, end: LSN) -> Measurement:
        """The clock starts when the slot is in use: what a start costs before that is not measured."""

        def pids() -> dict[str, int]:
            own = {"reader": self.process.pid} if self.process.running else {}
            return own | self._walsender() | {"redis": self.bench.transport.pid}

        self.process.start()
        try:
            self._wait(self._walsender)
            with measured(self.workload.rows, pids) as result:
                self._wait(lambda: self.redis.xlen(self.stream) >= self.workload.rows)
            assert not psutil.Process(self.process.pid).children(), "more than the one process that was measured"
        finally:
            self.process.kill()
        published = self.redis.xlen(self.stream)
        if published != self.workload.rows:
            raise PeerFailed(f"{self.name} published {published} entries for {self.workload.rows} row changes")
        return result

    def _walsender(self) -> dict[str, int]:
        rows = self.bench.execute(
            self.bench.source_dsn(),
            f"SELECT active_pid FROM pg_replication_slots WHERE slot_name = '{self.slot}' AND active_pid IS NOT NULL",
        )
        return named("walsender", rows)

    def _wait(self, condition: Callable[[], object]) -> None:
        deadline = time.monotonic() + _DEADLINE_SECONDS
        while not condition():
            if not self.process.running or time.monotonic() > deadline:
                what = "did not get to the end" if self.process.running else "ended"
                raise PeerFailed(f"{self.name} {what}:\n{self.process.output[-4000:]}")
            time.sleep(0.01)

    def close(self) -> None:
        deadline = time.monotonic() + _DEADLINE_SECONDS
        while self._walsender() and time.monotonic() < deadline:
            time.sleep(0.01)  # the server takes a moment to see that the user of the slot is gone
        self.drop_slot()
        self.redis.delete(self.stream)  # the next contender finds the memory free
        self.redis.close()


def installed(package: str, version: str) -> Path:
    """The environment with this package below `.bench/`, made when it is not there."""
    directory = _INSTALLATIONS / f"{package}-{version}"
    stamp = directory / ".installed"
    if not stamp.exists():
        execute([sys.executable, "-m", "venv", "--clear", str(directory)])
        execute([str(directory / "bin/python"), "-m", "pip", "install", "--quiet", f"{package}=={version}"])
        stamp.touch()
    return directory


def execute(command: list[str]) -> None:
    """Run a command to its end. Raises PeerFailed with what it printed."""
    done = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    if done.returncode != 0:
        raise PeerFailed(f"exit {done.returncode} of `{' '.join(command)}`:\n{done.stdout[-4000:]}")
