"""Postgres' own logical replication: no broker between, and no choice of what is published how."""

from __future__ import annotations

import psycopg

from tests.benchmarks.bench import PUBLICATION, named, wait
from tests.benchmarks.contender import Contender
from tests.benchmarks.measuring import Measurement, measured
from transforms.position import LSN


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
