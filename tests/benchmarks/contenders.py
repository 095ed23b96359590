"""Those who are measured. Each has its slot before the load, so that all of them work through the same log.

`prepare` brings a contender to where it waits for the load, `run` works through it to the end.
"""

from __future__ import annotations

import re
import subprocess
import time
from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path

import psycopg
import redis

from cdc.demo.binaries import postgres_programs
from cdc.demo.servers import PostgresServer, ValkeyServer
from cdc.replication import ReplicationConnection
from tests.benchmarks.measuring import Measurement, measured
from tests.benchmarks.workloads import Workload
from tests.processes import Command, Pipeline
from transforms.position import LSN

PUBLICATION = "bench"


@dataclass
class Bench:
    """The servers of a run."""

    source: PostgresServer
    target: PostgresServer
    transport: ValkeyServer
    directory: Path
    unix: bool = False
    load_end: LSN = field(default=LSN(0))
    """Where the load's last commit ended."""
    _connections: dict[str, psycopg.Connection] = field(default_factory=dict)

    def over_unix_sockets(self) -> Bench:
        """The same servers as a co-located client reaches them."""
        return replace(self, unix=True)

    def redis_url(self) -> str:
        """The transport's address."""
        return f"unix://{self.transport.socket_file}" if self.unix else self.transport.url()

    def source_dsn(self) -> str:
        """The database that is written to."""
        return self.source.dsn("bench", unix=self.unix)

    def target_dsn(self) -> str:
        """The database of the replicas."""
        return self.target.dsn("bench", unix=self.unix)

    def execute(self, dsn: str, statement: str) -> list[tuple[object, ...]]:
        """Run one statement in autocommit, on a connection that stays: looking must not cost what is measured."""
        connection = self._connections.get(dsn)
        if connection is None or connection.closed:
            connection = self._connections[dsn] = psycopg.connect(dsn, autocommit=True)
        cursor = connection.execute(statement.encode())
        return cursor.fetchall() if cursor.description else []

    def close(self) -> None:
        """End the connections."""
        for connection in self._connections.values():
            connection.close()

    def end(self) -> LSN:
        """The end of what has been committed."""
        # a record behind the load, so that every contender meets something to stop at
        self.execute(self.source_dsn(), "SELECT pg_logical_emit_message(true, 'bench', 'end')")
        return LSN.parse(str(self.execute(self.source_dsn(), "SELECT pg_current_wal_flush_lsn()::text")[0][0]))

    def walsender(self) -> dict[str, int]:
        """PIDs of the walsenders at work."""
        rows = self.execute(
            self.source_dsn(), "SELECT active_pid FROM pg_replication_slots WHERE active_pid IS NOT NULL"
        )
        return named("walsender", rows)


def named(name: str, rows: list[tuple[object, ...]]) -> dict[str, int]:
    """The PID in the first row, if there is one, under a name."""
    return {name: int(str(rows[0][0]))} if rows else {}


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


class _Reading(Contender):
    """Reads the log and throws it away."""

    def prepare(self) -> None:
        self.bench.execute(
            self.bench.source_dsn(), f"SELECT pg_create_logical_replication_slot('{self.slot}', 'pgoutput')"
        )

    def close(self) -> None:
        self.drop_slot()


class RecvLogical(_Reading):
    """Postgres' own client, output to /dev/null."""

    name = "pg_recvlogical"

    def run(self, end: LSN) -> Measurement:
        program = postgres_programs(18) / "pg_recvlogical"
        arguments = ["-d", self.bench.source_dsn(), "-S", self.slot, "--start", "-f", "/dev/null", "--no-loop"]
        options = ["-o", "proto_version=1", "-o", f"publication_names={PUBLICATION}", f"--endpos={end}"]
        client: dict[str, int] = {}
        with measured(self.workload.rows, lambda: self.bench.walsender() | client) as result:
            process = subprocess.Popen([str(program), *arguments, *options])
            client["reader"] = process.pid
            assert process.wait() == 0
        return result


class BareLibpq(_Reading):
    """A loop over libpq that throws frames away: the limit of any reader in this language."""

    name = "bare libpq"

    def run(self, end: LSN) -> Measurement:
        connection = ReplicationConnection(self.bench.source_dsn(), "bench")
        with measured(self.workload.rows, self.bench.walsender) as result:
            connection.start(self.slot, PUBLICATION)
            reached = 0
            while reached < end:
                for frame in connection.frames():
                    if frame[0] == 107:
                        reached = max(reached, int.from_bytes(frame[1:9], "big"))
                    elif frame[25] == 67:
                        reached = max(reached, int.from_bytes(frame[35:43], "big"))
                connection.wait(connection.fileno(), 0.1)
        connection.close()
        return result


class Statecast(Contender):
    """The product as users get it."""

    with_sink: bool
    snapshot = "never"
    pipeline: Pipeline
    processes: dict[str, Command]

    def prepare(self) -> None:
        self.make_pipeline()
        self.pipeline.run("cdc.cli", "run", "--once")
        if self.with_sink:
            self.pipeline.run("sinks.cli", "run", "copy", "--once")

    def make_pipeline(self) -> None:
        """Write the configuration."""
        bench = self.bench
        directory = bench.directory / self.slot
        directory.mkdir()
        columns = ", ".join(f'"{name}"' for name in self.workload.names)
        configuration = f'[events.bench]\ntable = "bench"\ncolumns = [{columns}]\n'
        configuration += '[sinks.copy]\ntype = "postgres"\ndsn = "${TARGET_DSN}"\n[sinks.copy.tables]\n'
        configuration += f'bench = "replica.{self.slot}"\n'
        environment = {"TARGET_DSN": bench.target_dsn()}
        self.pipeline = Pipeline(
            self.slot,
            bench.source_dsn(),
            bench.redis_url(),
            directory,
            configuration,
            environment,
            source_options=f'snapshot = "{self.snapshot}"',
            transport_options="",
        )

    def pids(self) -> dict[str, int]:
        """The processes that take part and are there now."""
        own = {name: command.pid for name, command in self.processes.items() if command.running}
        return own | self.bench.walsender() | {"redis": self.bench.transport.pid} | self._target()

    def run(self, end: LSN) -> Measurement:
        """The clock starts when the reader streams, as it does for a client that is connected."""
        self.start()
        with measured(self.workload.rows, self.pids) as result:
            wait(lambda: self.pipeline.published >= end)
            if self.with_sink:
                stream = next(iter(self.pipeline.last_ids()))
                goal = self.pipeline.last_ids()[stream]
                with psycopg.connect(self.bench.target_dsn(), autocommit=True) as connection:
                    wait(lambda: _position(connection, self.slot) >= (goal.commit_lsn, goal.ordinal))
        self.stop()
        return result

    def start(self) -> None:
        """Start reader and sink, and wait until both are at work."""
        self.processes = {}
        if self.with_sink:
            self.processes["sink"] = self.pipeline.sink("copy")
            wait(lambda: "works on" in self.processes["sink"].output)
        self.processes["reader"] = self.pipeline.reader()
        wait(lambda: "streaming from" in self.processes["reader"].output)

    def stop(self) -> None:
        """End them."""
        for command in self.processes.values():
            command.terminate()

    def _target(self) -> dict[str, int]:
        if not self.with_sink:
            return {}
        rows = self.bench.execute(
            self.bench.target_dsn(), "SELECT pid FROM pg_stat_activity WHERE application_name LIKE 'cdc-sink%'"
        )
        return named("target", rows)

    def close(self) -> None:
        self.pipeline.run("cdc.cli", "drop", "--yes")
        self.pipeline.close()
        self.bench.execute(self.bench.target_dsn(), f"DROP TABLE IF EXISTS replica.{self.slot}")


def _position(connection: psycopg.Connection, pipeline: str) -> tuple[int, int]:
    row = connection.execute(
        "SELECT commit_lsn - '0/0', ordinal FROM cdc.checkpoint WHERE pipeline = %s", (pipeline,)
    ).fetchone()
    return (int(row[0]), int(row[1])) if row else (0, 0)


class ReaderOnly(Statecast):
    """Decode, transform, publish."""

    name = "reader"
    with_sink = False


class EndToEnd(Statecast):
    """From the source's log to the replica."""

    name = "statecast"
    with_sink = True
    snapshot = "initial"


class EndToEndUnix(EndToEnd):
    """What co-located users get."""

    name = "statecast, Unix sockets"
    unix = True


class Subscription(Contender):
    """Postgres' own logical replication from the same source into the same target server."""

    name = "subscription"
    database: str
    """Of its own, since its table must have the source table's name."""

    def prepare(self) -> None:
        self.make_table()
        self.create()
        with psycopg.connect(self.bench.target.dsn(self.database), autocommit=True) as connection:
            connection.execute(f"ALTER SUBSCRIPTION {self.slot} DISABLE".encode())
        wait(lambda: not self.bench.walsender())

    def make_table(self) -> None:
        """Make the database and an empty table in it."""
        self.database = f"native_{self.slot}"
        self.bench.execute(self.bench.target.dsn("postgres"), f"CREATE DATABASE {self.database}")
        columns = ", ".join(map(" ".join, self.workload.columns))
        with psycopg.connect(self.bench.target.dsn(self.database), autocommit=True) as connection:
            connection.execute(f"CREATE TABLE public.bench ({columns})".encode())

    def create(self) -> None:
        """Create the subscription and wait until the initial copy is done."""
        made = f"CREATE SUBSCRIPTION {self.slot} CONNECTION '{self.bench.source_dsn()}' PUBLICATION {PUBLICATION}"
        ready = "SELECT bool_and(srsubstate = 'r') FROM pg_subscription_rel"
        with psycopg.connect(self.bench.target.dsn(self.database), autocommit=True) as connection:
            connection.execute(made.encode())
            wait(lambda: connection.execute(ready.encode()).fetchone() == (True,))

    def pids(self) -> dict[str, int]:
        """The processes that take part and are there now."""
        workers = "SELECT pid FROM pg_stat_activity WHERE backend_type LIKE 'logical replication%worker'"
        return self.bench.walsender() | named("target", self.bench.execute(self.bench.target_dsn(), workers))

    def run(self, end: LSN) -> Measurement:
        bench = self.bench
        with psycopg.connect(bench.target.dsn(self.database), autocommit=True) as connection:
            connection.execute(f"ALTER SUBSCRIPTION {self.slot} ENABLE".encode())
            wait(lambda: bool(bench.walsender()))
            with measured(self.workload.rows, self.pids) as result:
                # What it has applied, though perhaps not flushed. A page header may lie between end and position.
                applied = f"SELECT replay_lsn + 64 >= '{bench.load_end}' FROM pg_stat_replication"
                wait(lambda: bench.execute(bench.source_dsn(), applied) == [(True,)])
            connection.execute(f"ALTER SUBSCRIPTION {self.slot} DISABLE".encode())
        return result

    def close(self) -> None:
        with psycopg.connect(self.bench.target.dsn(self.database), autocommit=True) as connection:
            connection.execute(f"DROP SUBSCRIPTION IF EXISTS {self.slot}".encode())
        self.bench.execute(self.bench.target.dsn("postgres"), f"DROP DATABASE {self.database} WITH (FORCE)")


class SubscriptionUnix(Subscription):
    """The same over Unix sockets."""

    name = "subscription, Unix sockets"
    unix = True


def wait(condition: Callable[[], bool], seconds: float = 300.0) -> None:
    """Wait until a condition holds. Raises TimeoutError."""
    deadline = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > deadline:
            raise TimeoutError("a contender did not get to the end")
        time.sleep(0.02)


CONTENDERS: tuple[type[Contender], ...] = (RecvLogical, BareLibpq, ReaderOnly, EndToEnd, Subscription)
CO_LOCATED: tuple[type[Contender], ...] = (EndToEndUnix, SubscriptionUnix)


def flush(transport: ValkeyServer) -> None:
    """Empty Redis between workloads."""
    with redis.Redis.from_url(transport.url()) as client:
        client.flushall()
