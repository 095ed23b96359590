"""statecast itself, with and without a sink."""

from __future__ import annotations

import psycopg

from tests.benchmarks.bench import named, wait
from tests.benchmarks.contender import Contender
from tests.benchmarks.measuring import Measurement, measured
from tests.processes import Command, Pipeline
from transforms.position import LSN


class Statecast(Contender):
    """The product as users get it."""

    with_sink: bool
    snapshot = "never"
    shape = ""
    """More of the event's section."""
    pipeline: Pipeline
    processes: dict[str, Command]

    def prepare(self) -> None:
        self.make_pipeline()
        self.run_aside("cdc.cli", "run", "--once")
        if self.with_sink:
            self.run_aside("sinks.cli", "run", "copy", "--once")

    def make_pipeline(self) -> None:
        """Write the configuration."""
        bench = self.bench
        directory = bench.directory / self.slot
        directory.mkdir()
        columns = ", ".join(f'"{name}"' for name in self.workload.names)
        configuration = f'[events.bench]\ntable = "bench"\ncolumns = [{columns}]\n{self.shape}'
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
            forked=False,
        )

    def run_aside(self, *arguments: str) -> None:
        """Run a command that is not measured."""
        self.pipeline.forked = True
        self.pipeline.run(*arguments)
        self.pipeline.forked = False

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
        self.run_aside("cdc.cli", "drop", "--yes")
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


SHAPE = """
rename = { customer_id = "customer", note = "remark" }
mask = { status = "hash", doc = "redact", ref = "null" }
where = "amount >= 0.5 AND status IN ('new', 'paid', 'sent', 'again')"
[masking]
hash_key = "the key of the benchmark"
"""
"""Of a row, two fields have other names and three are masked; nearly every one is of the event."""


class ShapedReader(ReaderOnly):
    """The same with rename, mask and where."""

    name = "reader, shaped"
    shape = SHAPE


class ShapedEndToEnd(EndToEnd):
    """The same with rename, mask and where."""

    name = "statecast, shaped"
    shape = SHAPE


class EndToEndUnix(EndToEnd):
    """What co-located users get."""

    name = "statecast, Unix sockets"
    unix = True
