"""Real `cdc` and `cdc-sink` processes for tests, and waiting for what they do."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path

import psutil
import psycopg
import redis

from tests.contracts import expect_streams_as_promised
from tests.fork_server import Forked
from transforms.keys import Keys
from transforms.position import LSN, Position


def wait_until(what: str, condition: Callable[[], object], seconds: float = 120.0) -> None:
    """Wait until a condition holds, or fail with what was waited for. What takes long is looked at less often."""
    began = time.monotonic()
    while not condition():
        waited = time.monotonic() - began
        if waited > seconds:
            raise AssertionError(f"waited {seconds:.0f} s for: {what}")
        time.sleep(min(0.02 + waited / 20, 0.2))


@dataclass
class Command:
    """A process of ours whose output is kept."""

    arguments: list[str]
    environment: dict[str, str]
    log: Path
    forked: bool = False
    """Whether a Python module is not loaded anew, which saves most of a start; see tests/fork_server.py."""
    working_directory: Path | None = None
    _process: subprocess.Popen[bytes] | Forked | None = None

    def start(self) -> None:
        """Start it; what it prints is appended to `log`."""
        environment = os.environ | self.environment
        with self.log.open("ab") as log:
            if self.forked:
                _, _, module, *rest = self.arguments
                self._process = Forked(module, rest, environment, log, log, self.working_directory)
            else:
                self._process = subprocess.Popen(
                    self.arguments, env=environment, stderr=log, stdout=log, cwd=self.working_directory
                )

    @property
    def running(self) -> bool:
        """Whether it is running."""
        return self._process is not None and self._process.poll() is None

    @property
    def pid(self) -> int:
        """Its process id."""
        assert self._process is not None
        return self._process.pid

    @property
    def resident_bytes(self) -> int:
        """Its resident memory now."""
        assert self._process is not None
        return int(psutil.Process(self._process.pid).memory_info().rss)

    def kill(self) -> None:
        """SIGKILL."""
        self._end(signal.SIGKILL)

    def terminate(self) -> int:
        """SIGTERM; returns the exit code."""
        return self._end(signal.SIGTERM)

    def wait(self, seconds: float = 120.0) -> int:
        """Wait for its end; returns the exit code."""
        assert self._process is not None
        return self._process.wait(seconds)

    def _end(self, number: signal.Signals) -> int:
        assert self._process is not None
        self._process.send_signal(number)
        return self._process.wait(60)

    @property
    def output(self) -> str:
        """What it wrote to standard error so far."""
        return self.log.read_text(errors="replace") if self.log.exists() else ""


@dataclass
class Pipeline:
    """A configuration, and the processes that run it."""

    name: str
    source_dsn: str
    redis_url: str
    directory: Path
    configuration: str
    """TOML of events and sinks; pipeline, source and transport are put before it."""
    environment: dict[str, str] = field(default_factory=dict)
    source_options: str = ""
    transport_options: str = "confirm_delay_seconds = 0.3"
    forked: bool = True
    """Whether its commands are; not where they are measured."""
    working_directory: Path | None = None
    """Where its commands run; None: where the tests do."""

    def __post_init__(self) -> None:
        self.path = self.directory / "cdc.toml"
        self.path.write_text(
            f'[pipeline]\nname = "{self.name}"\n[source]\ndsn = "${{SOURCE_DSN}}"\n{self.source_options}\n'
            f'[transport]\nurl = "${{REDIS_URL}}"\n{self.transport_options}\n{self.configuration}\n'
        )
        self.environment = {"SOURCE_DSN": self.source_dsn, "REDIS_URL": self.redis_url, **self.environment}
        self.keys = Keys(self.name)
        self.redis = redis.Redis.from_url(self.redis_url)
        self.commands: list[Command] = []
        self.detours: dict[str, dict[str, str]] = {}
        """Module -> what its long-running commands find in their environment instead: other ways to the servers."""

    def command(self, *arguments: str, log: str | None = None, detour: bool = False) -> Command:
        """A command with this configuration, not started yet."""
        module, *rest = arguments
        path = self.directory / f"{log or '-'.join(rest[:2]) or module}.log"
        whole = [sys.executable, "-m", module, "-c", str(self.path), *rest]
        environment = self.environment | self.detours[module] if detour and self.detours else self.environment
        made = Command(whole, environment, path, self.forked, self.working_directory)
        self.commands.append(made)
        return made

    def reader(self, *options: str) -> Command:
        """`cdc run`, started."""
        made = self.command("cdc.cli", "run", *options, log="reader", detour=True)
        made.start()
        return made

    def sink(self, name: str, *options: str) -> Command:
        """`cdc-sink run NAME`, started."""
        made = self.command("sinks.cli", "run", name, *options, log=f"sink-{name}", detour=True)
        made.start()
        return made

    def run(self, *arguments: str, expect: int = 0, seconds: float = 120.0) -> str:
        """Run a command to its end; returns what it printed on both outputs."""
        made = self.command(*arguments, log="command")
        made.log.unlink(missing_ok=True)
        made.start()
        code = made.wait(seconds)
        assert code == expect, f"exit {code}, expected {expect}:\n{made.output}"
        return made.output

    # --- what somebody else may do to the slot -----------------------------------------------------------------------

    def drop_slot(self) -> None:
        """Drop the slot, which a reader that has just ended may hold for a moment yet."""
        self._on_free_slot("pg_drop_replication_slot(slot_name)")

    def advance_slot(self) -> None:
        """Confirm all that is committed now, as if somebody else had read it."""
        self._on_free_slot("pg_replication_slot_advance(slot_name, pg_current_wal_lsn())")

    def _on_free_slot(self, call: str) -> None:
        statement = f"SELECT {call} FROM pg_replication_slots WHERE slot_name = 'cdc_{self.name}' AND NOT active"
        with psycopg.connect(self.source_dsn, autocommit=True) as connection:
            wait_until("the slot to be free", lambda: connection.execute(statement.encode()).rowcount == 1)

    # --- where things stand ------------------------------------------------------------------------------------------

    @property
    def published(self) -> LSN:
        """What the reader says is in every stream."""
        value = self.redis.hget(self.keys.meta, "published")
        return LSN.parse(value.decode()) if isinstance(value, bytes) else LSN(0)

    def flush_position(self) -> LSN:
        """The end of what is committed. (The insert position may stand behind a page's header, where nothing ends.)"""
        with psycopg.connect(self.source_dsn) as connection:
            row = connection.execute("SELECT pg_current_wal_flush_lsn()::text").fetchone()
        assert row is not None
        return LSN.parse(row[0])

    def snapshots_done(self) -> bool:
        """Whether there are runs, and all are done."""
        runs = self.redis.hgetall(self.keys.runs)
        return bool(runs) and all(b'"state": "done"' in run for run in runs.values())

    def wait_published(self, seconds: float = 120.0) -> None:
        """Wait until all snapshots, and all that is committed now, are in the streams."""
        wait_until("the snapshots", self.snapshots_done, seconds)
        position = self.flush_position()
        wait_until(f"published to reach {position}", lambda: self.published >= position, seconds)

    def last_ids(self) -> dict[str, Position]:
        """Where each stream ends."""
        found = {}
        for key in self.redis.scan_iter(f"{self.name}:*", _type="STREAM"):
            stream = key.decode().removeprefix(f"{self.name}:")
            if stream != "requests":
                info = self.redis.xinfo_stream(key)
                found[stream] = Position.parse(info["last-generated-id"].decode())
        return found

    def checkpoints(self, target_dsn: str, sink: str) -> dict[str, Position]:
        """Where a sink stands in each stream."""
        with psycopg.connect(target_dsn) as connection:
            exists = connection.execute("SELECT to_regclass('cdc.checkpoint')").fetchone()
            if exists is None or exists[0] is None:
                return {}
            rows = connection.execute(
                "SELECT stream, commit_lsn::text, ordinal FROM cdc.checkpoint WHERE pipeline = %s AND sink = %s",
                (self.name, sink),
            ).fetchall()
        return {stream: Position(LSN.parse(lsn), ordinal) for stream, lsn, ordinal in rows}

    def wait_applied(self, target_dsn: str, sink: str, seconds: float = 120.0) -> None:
        """Wait until a sink has applied all that is in its streams now."""
        ends = self.last_ids()

        def applied() -> bool:
            stands = self.checkpoints(target_dsn, sink)
            return bool(stands) and all(position >= ends[stream] for stream, position in stands.items())

        wait_until(f"sink {sink} to apply {ends}", applied, seconds)

    def close(self) -> None:
        """End every process and the connection."""
        for command in self.commands:
            if command.running:
                command.kill()
        self.redis.close()


@contextmanager
def closing(pipeline: Pipeline) -> Iterator[Pipeline]:
    """The pipeline; its processes end with the block, and their logs are shown when it fails.

    What is in its streams then must be as its schema documents promise, if Redis is still there.
    """
    try:
        yield pipeline
        with suppress(redis.ConnectionError):
            expect_streams_as_promised(pipeline.redis, pipeline.keys)
    except BaseException:
        for log in sorted(pipeline.directory.glob("*.log")):
            print(f"--- {log.name}\n{log.read_text(errors='replace')[-4000:]}")
        raise
    finally:
        pipeline.close()
