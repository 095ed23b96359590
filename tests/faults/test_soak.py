"""Faults of all kinds, one after the other, for half an hour under load: what was written is there, and nothing grows.

STATECAST_SOAK_MINUTES   how long each of the two lasts (15)
STATECAST_FAULTS_SEED    replays the faults of a run that printed it (moments differ)
"""

from __future__ import annotations

import os
import random
import signal
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

import psutil
import psycopg
import pytest

from cdc.demo.servers import PostgresServer, ValkeyServer
from tests import servers, workload
from tests.checker import confirmed_stays_behind_published
from tests.faults.links import FAULTS, LASTING, proxied
from tests.faults.pair import Pair, chance
from tests.faults.proxy import Proxy
from tests.processes import Command, Pipeline, closing, wait_until
from tests.workload import Workload
from transforms.position import LSN

MINUTES = float(os.environ.get("STATECAST_SOAK_MINUTES", "15"))
CHANGES_PER_SECOND = 2_000
MOST_RESIDENT_BYTES = 150e6
GROWTH = 1.3
"""So many times what a process holds in the first third of the run, it may hold at most in the last one."""
WARM_SECONDS = 20.0
"""So old is a process that is measured."""


@dataclass
class Stage:
    """What faults happen to."""

    pair: Pair
    source: PostgresServer
    target: PostgresServer
    transport: ValkeyServer
    links: dict[str, Proxy]
    dice: random.Random
    done: Counter[str] = field(default_factory=Counter)
    longest: dict[str, float] = field(default_factory=dict)
    """By fault, the longest time until the sink had applied what was committed when it was over."""

    def faults(self) -> dict[str, Callable[[], None]]:
        """All of them, by name; each returns when it is over."""
        pair = self.pair
        found: dict[str, Callable[[], None]] = {
            "SIGKILL reader": partial(self._killed, pair.reader),
            "SIGKILL sink": partial(self._killed, pair.sink),
            "SIGSTOP reader": lambda: self._stopped(pair.reader.pid),
            "SIGSTOP sink": lambda: self._stopped(pair.sink.pid),
            "SIGKILL walsender": lambda: os.kill(self._walsender(), signal.SIGKILL),
            "SIGSTOP walsender": lambda: self._stopped(self._walsender()),
            "source stopped at once": partial(self._restarted, self.source),
            "target stopped at once": partial(self._restarted, self.target),
            "Redis killed": self._redis_killed,
        }
        for name, link in self.links.items():
            for fault in FAULTS:
                found[f"{name}: {fault}"] = partial(self._on_link, link, fault)
        return found

    def _killed(self, command: Command) -> None:
        self.pair.kill(command)
        command.start()

    def _stopped(self, pid: int) -> None:
        os.kill(pid, signal.SIGSTOP)
        time.sleep(self.dice.uniform(0.5, 5))  # it halts for so long
        os.kill(pid, signal.SIGCONT)

    def _walsender(self) -> int:
        query = "SELECT active_pid FROM pg_replication_slots WHERE active_pid IS NOT NULL"
        found: list[int] = []

        def look() -> bool:
            with psycopg.connect(self.pair.shop.source_dsn) as connection:
                found.extend(pid for (pid,) in connection.execute(query))
            return bool(found)

        wait_until("a walsender", look)
        return found[0]

    @staticmethod
    def _restarted(server: PostgresServer) -> None:
        server.stop("immediate")
        server.start_again()

    def _redis_killed(self) -> None:
        self.transport.kill()
        self.transport.start_again()

    def _on_link(self, link: Proxy, fault: str) -> None:
        FAULTS[fault](link, self.dice)
        time.sleep(self.dice.uniform(1, 5) if fault in LASTING else self.dice.uniform(0, 0.5))
        link.heal()

    def happen(self, name: str, fault: Callable[[], None]) -> None:
        """Have a fault happen, and wait until all that was committed at its end is applied."""
        fault()
        began, shop, pair = time.monotonic(), self.pair.shop, self.pair
        position = LSN(0)

        def answered(look: Callable[[], object]) -> bool:
            for command in (pair.reader, pair.sink):
                assert command.running, command.output[-3000:]
            try:
                return bool(look())
            except psycopg.OperationalError:  # a killed walsender takes the whole server with it
                return False

        def look() -> bool:
            nonlocal position
            position = shop.flush_position()
            return True

        wait_until("the source to answer", lambda: answered(look))
        wait_until(f"{position} published after: {name}", lambda: answered(lambda: shop.published >= position))
        ends = shop.last_ids()

        def applied() -> bool:
            stands = shop.checkpoints(pair.target, "copy")
            return bool(stands) and all(there >= ends[stream] for stream, there in stands.items())

        wait_until(f"{ends} applied after: {name}", lambda: answered(applied))
        seconds = time.monotonic() - began
        self.done[name] += 1
        self.longest[name] = max(self.longest.get(name, 0.0), seconds)


@dataclass
class Footprint:
    """What the two processes held, by the share of the run that had passed."""

    memory: dict[str, list[tuple[float, int]]] = field(default_factory=lambda: {"reader": [], "sink": []})
    files: dict[str, list[tuple[float, int]]] = field(default_factory=lambda: {"reader": [], "sink": []})

    def measure(self, pair: Pair, share: float) -> None:
        for name, command in (("reader", pair.reader), ("sink", pair.sink)):
            process = psutil.Process(command.pid)
            if time.time() - process.create_time() > WARM_SECONDS:
                self.memory[name].append((share, process.memory_info().rss))
                self.files[name].append((share, process.num_fds()))

    def judge(self) -> None:
        """Assert that nothing grew."""
        for what, by_process in (("bytes resident", self.memory), ("open files", self.files)):
            for name, values in by_process.items():
                first = [value for share, value in values if share < 1 / 3]
                last = [value for share, value in values if share > 2 / 3]
                if first and last:
                    print(f"{name}: {what} {max(first):,} in the first third, {max(last):,} in the last")
                    assert max(last) <= GROWTH * max(first), f"{what} of the {name} grow: {values}"
            assert any(by_process.values()), "no process lived long enough to be measured"
        peak = max(value for values in self.memory.values() for _, value in values)
        assert peak < MOST_RESIDENT_BYTES, f"{peak:,} bytes"


@contextmanager
def stage(directory: Path, name: str, fsync: str, dice: random.Random) -> Iterator[Stage]:
    """Servers of its own, and both processes on links that lead through proxies."""
    with (
        PostgresServer.start() as source_server,
        PostgresServer.start() as target_server,
        ValkeyServer.start(settings={"appendonly": "yes", "appendfsync": fsync}) as transport,
        servers.database(source_server, "source") as source,
        servers.database(target_server, "target") as target,
    ):
        configuration = workload.EVENTS + workload.SINK
        options = "confirm_delay_seconds = 2\nretain = '3h'"
        environment = {"TARGET_DSN": target}
        shop = Pipeline(name, source, transport.url(), directory, configuration, environment, transport_options=options)
        with closing(shop), proxied(shop) as links:
            pair = Pair.start(shop, 20_000)
            pair.wait()
            yield Stage(pair, source_server, target_server, transport, links, dice)


@pytest.mark.soak
@pytest.mark.parametrize("fsync", ["always", "everysec"])
@pytest.mark.timeout(MINUTES * 60 + 1200)
def test_half_an_hour_of_mixed_faults(tmp_path: Path, pipeline_name: str, embedded_only: None, fsync: str) -> None:
    dice = chance(f"soak, appendfsync {fsync}")
    with stage(tmp_path, pipeline_name, fsync, dice) as held:
        load = Workload(
            held.pair.shop.source_dsn, seed=dice.randrange(1 << 32), keys=4_000, transactions_per_second=400,
            giant_rows=20_000, bulk_rows=20, patient=True,
        )  # fmt: skip
        footprint = Footprint()
        faults = held.faults()
        began = time.monotonic()
        with confirmed_stays_behind_published(held.pair.shop, patient=True), load.running():
            while (passed := time.monotonic() - began) < MINUTES * 60:
                footprint.measure(held.pair, passed / (MINUTES * 60))
                # each process and server as often as each link
                kinds = [name for name in faults if ": " not in name]
                links = [name for name in faults if ": " in name]
                name = dice.choice(kinds if dice.random() < 0.5 else links)
                held.happen(name, faults[name])
            written = sum(map(len, load.record.changes.values()))
            seconds = time.monotonic() - began
        verdict = held.pair.judge(load, least=1_000)
        slowest = sorted(held.longest.items(), key=lambda item: -item[1])[:5]
        print(
            f"{sum(held.done.values())} faults in {seconds / 60:.1f} min: {dict(held.done.most_common())}\n"
            f"{written:,} changes written, {written / seconds:,.0f} a second; {verdict}\n"
            f"longest recoveries: {', '.join(f'{name} {took:.1f} s' for name, took in slowest)}"
        )
        footprint.judge()
        assert written / seconds > CHANGES_PER_SECOND / 2, "the load was too small to show anything"
