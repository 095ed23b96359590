"""`python -m tests.benchmarks [--rounds N] [--scale F] [--peers] [WORKLOAD...]`: run, print, write bench.json."""

from __future__ import annotations

import argparse
import json
import os
import statistics
import sys
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path
from tempfile import TemporaryDirectory

import psycopg
from rich.console import Console
from rich.table import Table

from cdc.demo.servers import PostgresServer, ValkeyServer
from tests.benchmarks.contenders import CONTENDERS, PUBLICATION, Bench, Contender, flush
from tests.benchmarks.latency import LATENCY_CONTENDERS
from tests.benchmarks.measuring import Measurement
from tests.benchmarks.peers import PEERS, available
from tests.benchmarks.snapshots import SNAPSHOT_CONTENDERS
from tests.benchmarks.workloads import Workload, workloads

CONTENDERS_OF: dict[str, Sequence[type[Contender]]] = {"snapshot": SNAPSHOT_CONTENDERS, "latency": LATENCY_CONTENDERS}

Results = dict[str, list[Measurement]]


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.benchmarks")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--scale", type=float, default=1.0, help="share of the full number of rows")
    parser.add_argument("--unix", action="store_true", help="Unix sockets instead of TCP loopback to Postgres")
    parser.add_argument("--only", action="append", help="contenders to run")
    parser.add_argument("--peers", action="store_true", help="packages that do part of the job, too")
    parser.add_argument("workloads", nargs="*")
    options = parser.parse_args()
    contenders = [*CONTENDERS, *(available(PEERS) if options.peers else ())]
    console = Console(highlight=False, width=150)
    report: dict[str, object] = {"load_average": os.getloadavg(), "rounds": options.rounds, "scale": options.scale}
    for workload in workloads(options.scale):
        if options.workloads and workload.name not in options.workloads:
            continue
        entered = CONTENDERS_OF.get(workload.name, contenders)
        chosen = [c for c in entered if not options.only or c.name in options.only]
        results = run_workload(workload, chosen, options.rounds, unix=options.unix)
        console.print(table_of(workload, results))
        report[workload.name] = {name: [vars(one) for one in many] for name, many in results.items()}
    Path("bench.json").write_text(json.dumps(report, indent=2))
    return 0


def run_workload(workload: Workload, chosen: list[type[Contender]], rounds: int, *, unix: bool) -> Results:
    """Load once, then let every contender work through it, alternating."""
    results: Results = {contender.name: [] for contender in chosen}
    settings = {"max_wal_size": "8GB", "shared_buffers": "256MB", "fsync": "on", "max_replication_slots": "100"}
    with (
        TemporaryDirectory() as directory,
        PostgresServer.start(settings=settings) as source,
        PostgresServer.start(settings=settings, own_identity=True) as target,
        ValkeyServer.start() as transport,
        ExitStack() as stack,
    ):
        bench = Bench(source, target, transport, Path(directory), unix)
        stack.callback(bench.close)
        for server in (source, target):
            bench.execute(server.dsn(), "CREATE DATABASE bench")
        with psycopg.connect(bench.source_dsn(), autocommit=True) as connection:
            workload.create(connection)
            connection.execute(f"CREATE PUBLICATION {PUBLICATION} FOR TABLE bench".encode())
            runs = [contender(bench, workload, number) for number in range(rounds) for contender in chosen]
            for run in runs:
                run.prepare()
            workload.load(connection)
            connection.execute("CHECKPOINT")
        bench.execute(target.dsn(), "CHECKPOINT")
        end = bench.end()
        for run in runs:
            results[run.name].append(run.run(end))
            run.close()
        flush(transport)
    return results


def table_of(workload: Workload, results: Results) -> Table:
    """The table of one workload; ratios are against `pg_recvlogical` for readers, else against the subscription."""
    table = Table(title=f"{workload.name}: {workload.rows:,} {workload.what}", title_justify="left")
    for heading in ("", "rows/s", "spread", "ratio", "CPU s per million rows", "peak resident MB"):
        table.add_column(heading, justify="right" if heading else "left")
    for name, many in results.items():
        yardstick = results.get("subscription" if name in ("statecast", "subscription") else "pg_recvlogical")
        rates = [one.rows_per_second for one in many]
        middle = statistics.median(rates)
        ratio = middle / statistics.median([one.rows_per_second for one in yardstick]) if yardstick else float("nan")
        cpu = {
            process: statistics.median([one.cpu_seconds.get(process, 0.0) for one in many])
            for process in many[0].cpu_seconds
        }
        memory = {process: max(one.resident_bytes.get(process, 0) for one in many) for process in ("reader", "sink")}
        table.add_row(
            name,
            f"{middle:,.0f}",
            f"{min(rates):,.0f} to {max(rates):,.0f}",
            f"{ratio:.2f}",
            "  ".join(f"{process} {seconds / workload.rows * 1e6:.1f}" for process, seconds in sorted(cpu.items())),
            "  ".join(f"{process} {size / 1e6:.0f}" for process, size in memory.items() if size),
        )
    return table


if __name__ == "__main__":
    sys.exit(main())
