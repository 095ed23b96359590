"""The demo from start to verdict. Everything in it is real: servers, commands, load, and the comparison.

The replicas have a cluster of their own. In the source's cluster their writes would go into the very log that is
being read, and `behind` would count what the sinks themselves write.
"""

from __future__ import annotations

import os
import shutil
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from io import TextIOWrapper
from pathlib import Path
from tempfile import mkdtemp

import psycopg
from psycopg import sql
from rich.console import Console
from rich.text import Text

from cdc.demo import shop
from cdc.demo.figures import Figures
from cdc.demo.load import Load
from cdc.demo.monitor import Monitor
from cdc.demo.probe import Probe, percentile
from cdc.demo.processes import CommandEnded, Commands
from cdc.demo.scratch import scratch_directory
from cdc.demo.servers import PostgresServer, ValkeyServer
from cdc.demo.verdict import Verdict, compare
from cdc.demo.view import View, verdict_table, view_for
from transforms.errors import EXIT_DIFFERENCE, EXIT_DONE, EXIT_INTERRUPTED

_PROBED = {"billing": "ledger.debtors", "shipping": "depot.recipients"}
"""Each sink with its copy of the customers, where its probe looks."""
_FRAME_SECONDS = 0.25
_CATCH_UP_SECONDS = 60.0


class _Interrupted(Exception):
    """Told to stop before the verdict."""


def run_demo(seconds: float, *, stop: threading.Event) -> int:
    """Run the demo with `seconds` of load; returns the exit code. `stop` ends it early, with nothing left behind."""
    for name in [name for name in os.environ if name.startswith("PG")]:
        del os.environ[name]  # they would change what our own clients connect to; this process has no others
    if isinstance(sys.stdout, TextIOWrapper):
        sys.stdout.reconfigure(errors="replace")  # a terminal without Unicode
    console = Console(highlight=False)
    try:
        with ExitStack() as stack:
            return _Demo(console, stop, stack).play(seconds)
    except _Interrupted:
        console.print("stopped early; nothing is left running")
        return EXIT_INTERRUPTED
    except CommandEnded as ended:
        console.print(Text.assemble(("error:", "bold red"), f" {ended}"), soft_wrap=True)
        return EXIT_DIFFERENCE


class _Demo:
    """One run of the demo. What it starts ends with `stack`, the last thing first."""

    def __init__(self, console: Console, stop: threading.Event, stack: ExitStack) -> None:
        self._console = console
        self._stop = stop
        self._stack = stack

    def play(self, seconds: float) -> int:
        """Start everything, let it run, and judge."""
        with self._step("PostgreSQL for the shop, another for two replicas, Valkey in between"):
            addresses = self._start_servers()
        with self._step("112,000 rows in the shop's four tables"):
            shop.create(addresses["SOURCE_DSN"])
        self._begin(addresses)
        with view_for(self._console) as view:
            self._run_load(view, seconds)
            late = self._catch_up(view)
        verdicts = self._compare(addresses)
        return self._tell(verdicts, late)

    # --- starting ----------------------------------------------------------------------------------------------------

    @contextmanager
    def _step(self, what: str) -> Iterator[None]:
        started = time.monotonic()
        with self._console.status(what):
            yield
        if self._stop.is_set():
            raise _Interrupted
        self._console.print(f"[dim]{time.monotonic() - started:4.1f} s[/]  {what}")

    def _start_servers(self) -> Mapping[str, str]:
        starts: list[Callable[[], PostgresServer | ValkeyServer]] = [
            PostgresServer.start,
            lambda: PostgresServer.start(settings={"wal_level": "replica"}),
            ValkeyServer.start,
        ]
        with ThreadPoolExecutor() as threads:
            started = [threads.submit(start) for start in starts]
        for server in started:
            if server.exception() is None:
                self._stack.callback(server.result().close)
        source, replicas, valkey = (server.result() for server in started)
        assert isinstance(source, PostgresServer)
        assert isinstance(replicas, PostgresServer)
        assert isinstance(valkey, ValkeyServer)
        for server_, databases in ((source, ["shop"]), (replicas, list(_PROBED))):
            with psycopg.connect(server_.dsn(), autocommit=True) as connection:
                for database in databases:
                    connection.execute(sql.SQL("CREATE DATABASE {}").format(sql.Identifier(database)))
        dsns = {f"{sink.upper()}_DSN": replicas.dsn(sink) for sink in _PROBED}
        return {"SOURCE_DSN": source.dsn("shop"), "REDIS_URL": valkey.url(), "MASK_KEY": shop.MASK_KEY, **dsns}

    def _begin(self, addresses: Mapping[str, str]) -> None:
        """The commands and the load, at the same moment: the initial snapshot is taken under load."""
        directory = Path(mkdtemp(prefix="demo-", dir=scratch_directory()))
        self._stack.callback(shutil.rmtree, directory, ignore_errors=True)
        config_file = directory / "cdc.toml"
        config_file.write_text(shop.CONFIG, encoding="utf-8")
        self._commands = self._stack.enter_context(Commands(config_file, addresses, list(_PROBED)))
        self._console.print("[dim]        $ cdc run · cdc-sink run billing · cdc-sink run shipping[/]")
        self._load = Load(addresses["SOURCE_DSN"])
        self._stack.callback(self._load.stop)
        self._probes = [
            Probe(sink, addresses["SOURCE_DSN"], addresses[f"{sink.upper()}_DSN"], table, number)
            for number, (sink, table) in enumerate(_PROBED.items(), 1)
        ]
        self._monitor = self._stack.enter_context(
            Monitor(
                addresses["SOURCE_DSN"],
                addresses["REDIS_URL"],
                {sink: addresses[f"{sink.upper()}_DSN"] for sink in _PROBED},
                self._load,
                self._probes,
            )
        )
        self._load.start()
        for probe in self._probes:
            self._stack.callback(probe.stop)
            probe.start()

    # --- running -----------------------------------------------------------------------------------------------------

    def _run_load(self, view: View, seconds: float) -> None:
        started = time.monotonic()
        while (elapsed := time.monotonic() - started) < seconds:
            self._frame(view, f"{elapsed:.0f} s of {seconds:g} s")
        self._load.stop()
        for probe in self._probes:
            probe.stop()

    def _catch_up(self, view: View) -> list[str]:
        """Wait until the sinks have applied everything; returns those that were not done in time."""
        started, goal = time.monotonic(), None
        while True:
            figures = self._frame(view, "the load is over")
            if goal is None and figures.snapshot_complete:
                goal = self._monitor.flushed_position()  # not before: chunks are published behind the end of the log
            late = [sink.name for sink in figures.sinks if goal is None or (sink.applied or 0) < goal]
            if not late or time.monotonic() - started > _CATCH_UP_SECONDS:
                return late

    def _frame(self, view: View, clock: str) -> Figures:
        self._commands.check()
        failures = [self._load.failure, *(probe.failure for probe in self._probes)]
        for failure in filter(None, failures):
            raise failure
        figures = self._monitor.look()
        view.show(figures, clock)
        if self._stop.wait(_FRAME_SECONDS):
            raise _Interrupted
        return figures

    # --- the verdict -------------------------------------------------------------------------------------------------

    def _compare(self, addresses: Mapping[str, str]) -> list[Verdict]:
        verdicts = []
        with self._console.status("comparing every row"):
            for copy in shop.copies():
                verdicts.append(compare(copy, addresses["SOURCE_DSN"], addresses[f"{copy.sink.upper()}_DSN"]))
                if self._stop.is_set():
                    raise _Interrupted
        return verdicts

    def _tell(self, verdicts: list[Verdict], late: list[str]) -> int:
        figures, console = self._monitor.look(), self._console
        console.print(verdict_table(verdicts))
        for verdict in verdicts:
            for kind, key in verdict.examples:
                text = Text.assemble((kind, "red"), f" in {verdict.copy.replica_table}: key {key}")
                console.print(text, soft_wrap=True)
        for sink in late:
            console.print(f"[red]{sink}[/] had not applied everything after {_CATCH_UP_SECONDS:.0f} s")
        console.print(f"{figures.changes:,} rows changed, {figures.entries:,} entries published")
        console.print(f"update to replica: {self._latency()}", soft_wrap=True)
        differences = sum(verdict.differences for verdict in verdicts)
        console.print(f"[bold {'red' if differences else 'green'}]{differences} differences[/]")
        return EXIT_DIFFERENCE if differences else EXIT_DONE

    def _latency(self) -> str:
        samples, when = self._monitor.latencies_after_snapshot(), "after the snapshot"
        if not samples:
            samples, when = (
                [sample.seconds for probe in self._probes for sample in probe.samples],
                "during the snapshot",
            )
        if not samples:
            return "not measured, since no probe arrived in time"
        median, worst = percentile(samples, 0.50) * 1e3, percentile(samples, 0.99) * 1e3
        return f"p50 {median:,.0f} ms, p99 {worst:,.0f} ms ({len(samples):,} timed {when})"
