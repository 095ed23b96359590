"""The servers of a run, and who is at work on them."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path

import psycopg
import redis

from cdc.demo.servers import PostgresServer, ValkeyServer
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


def wait(condition: Callable[[], bool], seconds: float = 300.0) -> None:
    """Wait until a condition holds. Raises TimeoutError."""
    deadline = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > deadline:
            raise TimeoutError("a contender did not get to the end")
        time.sleep(0.02)


def flush(transport: ValkeyServer) -> None:
    """Empty Redis between workloads."""
    with redis.Redis.from_url(transport.url()) as client:
        client.flushall()
