"""A reader and a sink over the workload's tables, and their deaths: at named places, or at any moment."""

from __future__ import annotations

import os
import random
import signal
import time
from dataclasses import dataclass, field
from typing import Any, cast

import psycopg

from tests import checker, workload
from tests.processes import Command, Pipeline, wait_until
from tests.workload import Workload
from transforms.failpoints import ALLOWED_BY, ARMED_BY, Action, Failpoint
from transforms.position import LSN, START, Position

RESUME_SECONDS = 5.0
"""How long a reader that was killed may take until all that was committed meanwhile is published."""
SEED_FROM = "STATECAST_FAULTS_SEED"


def chance(name: str, default: int | None = None) -> random.Random:
    """What a test draws from; its seed is printed, and taken from the environment to replay it (default: any)."""
    given = os.environ.get(SEED_FROM)
    seed = int(given) if given else random.SystemRandom().randrange(1 << 32) if default is None else default
    print(f"{name}: {SEED_FROM}={seed}")
    return random.Random(seed)


@dataclass
class Pair:
    """Both processes; one that is dead is started again by `resume_...`."""

    shop: Pipeline
    reader: Command
    sink: Command
    recoveries: dict[str, list[float]] = field(default_factory=lambda: {"reader": [], "sink": []})
    """Seconds from a start to being up to date with what was there at that start."""
    kills: dict[str, int] = field(default_factory=lambda: {"reader": 0, "sink": 0})

    @classmethod
    def start(cls, shop: Pipeline, rows: int) -> Pair:
        """Seed the source, start the reader and the sink, with triggers in the replica that watch `rev`."""
        workload.seed(shop.source_dsn, rows)
        reader = shop.reader()
        wait_until("the slot", lambda: shop.published)
        shop.run("sinks.cli", "tables", "copy", "--apply")
        checker.watch_revs(shop.environment["TARGET_DSN"])
        return cls(shop, reader, shop.sink("copy"))

    @property
    def target(self) -> str:
        """The replica's database."""
        return self.shop.environment["TARGET_DSN"]

    def wait(self) -> None:
        """Until all that is committed now is applied."""
        self.shop.wait_published()
        self.shop.wait_applied(self.target, "copy")

    def kill(self, command: Command) -> None:
        """SIGKILL."""
        command.kill()
        self.kills[self._name(command)] += 1

    def die(self, command: Command, place: Failpoint, at: int) -> None:
        """Kill a process and start it so that it kills itself at a place, at the pass `at`; returns at once."""
        self.kill(command)
        command.environment = self._armed(command, place, Action.KILL, at)
        if command is self.sink:
            self._end_lease()
        command.start()

    def wait_for_death(self, command: Command, place: Failpoint) -> None:
        """Until a process that was started armed has killed itself."""
        wait_until(f"{place} to be reached", lambda: not command.running, 60)
        assert command.wait() == -signal.SIGKILL, command.output[-2000:]
        self.kills[self._name(command)] += 1
        assert command.output.rstrip().endswith(f"failpoint {place}: kill"), command.output[-2000:]

    def resume(self, command: Command, fails_at: Failpoint | None = None, at: int = 1) -> float:
        """Start a process again; returns the seconds until it has done what was there at that moment.

        `fails_at`: it meets an error there on the way, at the pass `at`.
        """
        command.environment = self._disarmed(command)
        if fails_at is not None:
            command.environment = self._armed(command, fails_at, Action.ERROR, at)
        position, ends, began = self.shop.flush_position(), self._whole_ends(), time.monotonic()

        def applied() -> bool:
            stands = self.shop.checkpoints(self.target, "copy")
            return bool(stands) and all(position >= ends.get(stream, START) for stream, position in stands.items())

        def up_to_date() -> bool:
            assert command.running, command.output[-2000:]
            return applied() if command is self.sink else self.shop.published >= position

        if command is self.sink:
            self._end_lease()
        command.start()
        wait_until("it to be up to date", up_to_date)
        seconds = time.monotonic() - began
        self.recoveries[self._name(command)].append(seconds)
        return seconds

    def _name(self, command: Command) -> str:
        return "sink" if command is self.sink else "reader"

    def _armed(self, command: Command, place: Failpoint, action: Action, at: int) -> dict[str, str]:
        return {**self._disarmed(command), ARMED_BY: f"{place}:{action}@{at}", ALLOWED_BY: "1"}

    @staticmethod
    def _disarmed(command: Command) -> dict[str, str]:
        return {name: value for name, value in command.environment.items() if name not in (ARMED_BY, ALLOWED_BY)}

    def _whole_ends(self) -> dict[str, Position]:
        """By stream, the last entry that ends a transaction: a reader may have died within the one behind it."""
        return {stream: end for stream in self.shop.last_ids() if (end := self._whole_end(stream)) is not None}

    def _whole_end(self, stream: str) -> Position | None:
        key, newest = self.shop.keys.stream(stream, 1), "+"
        while page := cast(Any, self.shop.redis.xrevrange(key, newest, count=1_000)):
            for entry_id, fields in page:
                if b"end" in fields or b"origin" in fields:
                    return Position.parse(entry_id.decode())
            newest = f"({page[-1][0].decode()}"
        return None

    def _end_lease(self) -> None:
        """As if a dead sink's time were over."""
        with psycopg.connect(self.target, autocommit=True) as connection:
            connection.execute("UPDATE cdc.checkpoint SET lease_until = clock_timestamp()")

    def confirmed(self) -> LSN:
        """What the slot has confirmed."""
        with psycopg.connect(self.shop.source_dsn) as connection:
            row = connection.execute(
                "SELECT confirmed_flush_lsn::text FROM pg_replication_slots WHERE slot_name = %s",
                (f"cdc_{self.shop.name}",),
            ).fetchone()
        assert row is not None
        return LSN.parse(row[0])

    def judge(self, load: Workload, least: int = 100) -> str:
        """Have the checker look for what is wrong; returns what there was, for a report."""
        changes = checker.assert_nothing_wrong(self.shop, load.record, least=least)
        longest = {name: f"{max(seconds):.2f} s" for name, seconds in self.recoveries.items() if seconds}
        return f"kills {self.kills}, changes {changes}, differences 0, holes 0, longest recovery {longest}"
