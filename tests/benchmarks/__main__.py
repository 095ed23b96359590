"""`python -m tests.benchmarks [--quick] [--rounds N] [--scale F] [--peers] [WORKLOAD...]`: print, write bench.json.

Exit code 1 when a bar is missed; `--quick` is short, and its bars leave generous room.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path
from tempfile import TemporaryDirectory

import psycopg
from rich.console import Console

from cdc.demo.servers import PostgresServer, ValkeyServer
from tests.benchmarks.bench import PUBLICATION, Bench, flush
from tests.benchmarks.contender import Contender
from tests.benchmarks.latency import LATENCY_CONTENDERS
from tests.benchmarks.log_readers import BareLibpq, RecvLogical
from tests.benchmarks.measuring import Measurement
from tests.benchmarks.peers import PEERS, available
from tests.benchmarks.product import EndToEnd, EndToEndUnix, ReaderOnly, ShapedEndToEnd, ShapedReader
from tests.benchmarks.report import SHAPED_BARS, as_json, missed, table_of
from tests.benchmarks.snapshots import SNAPSHOT_CONTENDERS
from tests.benchmarks.subscription import Subscription, SubscriptionUnix
from tests.benchmarks.workloads import Workload, workloads
from tests.servers import keep_in_memory
from transforms.position import LSN

CONTENDERS: tuple[type[Contender], ...] = (RecvLogical, BareLibpq, ReaderOnly, EndToEnd, Subscription)
SHAPED: tuple[type[Contender], ...] = (ShapedReader, ShapedEndToEnd)
CO_LOCATED: tuple[type[Contender], ...] = (EndToEndUnix, SubscriptionUnix)
CONTENDERS_OF: dict[str, Sequence[type[Contender]]] = {"snapshot": SNAPSHOT_CONTENDERS, "latency": LATENCY_CONTENDERS}
QUICK_SCALE = 0.1
QUICK_SHARE = 0.15
"""How much of a bar a quick run must reach: it is short, and other things may run beside it."""


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.benchmarks")
    parser.add_argument("--quick", action="store_true", help="one short round")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--scale", type=float, default=1.0, help="share of the full number of rows")
    parser.add_argument("--unix", action="store_true", help="Unix sockets instead of TCP loopback to Postgres")
    parser.add_argument("--only", action="append", help="contenders to run")
    parser.add_argument("--peers", action="store_true", help="packages that do part of the job, too")
    parser.add_argument("workloads", nargs="*")
    options = parser.parse_args()
    if options.quick:
        options.rounds, options.scale = 1, QUICK_SCALE
        keep_in_memory()  # most of a quick run would be the making of servers
    console = Console(highlight=False, width=150)
    report: dict[str, object] = {"rounds": options.rounds, "scale": options.scale}
    misses: list[str] = []
    for workload in workloads(options.scale):
        if options.workloads and workload.name not in options.workloads:
            continue
        chosen = [one for one in contenders(workload, options) if not options.only or one.name in options.only]
        results = run_workload(workload, chosen, options.rounds, unix=options.unix)
        console.print(table_of(workload, results))
        report[workload.name] = as_json(results)
        misses += missed(workload.name, results, QUICK_SHARE if options.quick else 1.0)
    Path("bench.json").write_text(json.dumps(report, indent=2))
    for miss in misses:
        console.print(f"missed: {miss}")
    return 1 if misses else 0


def contenders(workload: Workload, options: argparse.Namespace) -> list[type[Contender]]:
    """Who takes part in a workload."""
    if workload.name in CONTENDERS_OF:
        return list(CONTENDERS_OF[workload.name])
    if options.quick:
        return [RecvLogical, ReaderOnly, EndToEnd, Subscription]
    co_located = CO_LOCATED if workload.name == "bulk" and not options.peers else ()
    shaped = SHAPED if workload.name in SHAPED_BARS and not options.peers else ()
    return [*CONTENDERS, *shaped, *co_located, *(available(PEERS) if options.peers else ())]


def run_workload(
    workload: Workload, chosen: list[type[Contender]], rounds: int, *, unix: bool
) -> dict[str, list[Measurement]]:
    """Load once, then let every contender work through it, alternating."""
    results: dict[str, list[Measurement]] = {contender.name: [] for contender in chosen}
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
            bench.load_end = LSN.parse(
                str(bench.execute(bench.source_dsn(), "SELECT pg_current_wal_insert_lsn()::text")[0][0])
            )
            connection.execute("CHECKPOINT")
        bench.execute(target.dsn(), "CHECKPOINT")
        end = bench.end()
        for run in runs:
            results[run.name].append(run.run(end))
            run.close()
        flush(transport)
    return results


if __name__ == "__main__":
    sys.exit(main())
