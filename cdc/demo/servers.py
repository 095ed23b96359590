"""Private PostgreSQL and Valkey servers from wheels, for `cdc demo` and for the tests.

A server lives in a directory of its own below `scratch_directory()`. `close()` ends its processes and removes the
directory. What is still open when this process ends, however it ends, is ended and removed by the janitor.
"""

from __future__ import annotations

import shutil
import signal
import socket
import subprocess
import tempfile
import threading
import zlib
from collections.abc import Mapping
from pathlib import Path
from typing import ClassVar, Literal

import psycopg
from psycopg.conninfo import make_conninfo

from cdc.demo.binaries import account, postgres_programs, valkey_program
from cdc.demo.scratch import scratch_directory
from cdc.demo.server_process import EmbeddedServerFailed, ServerProcess, launch, tail

StopMode = Literal["smart", "fast", "immediate"]

_INITIALISE_SECONDS = 60.0

_POSTGRES_SETTINGS = {
    "wal_level": "logical",
    "max_wal_senders": "20",
    "max_replication_slots": "20",
    "max_prepared_transactions": "10",
    "max_connections": "100",
    "shared_buffers": "128MB",
    "listen_addresses": "127.0.0.1",
    "fsync": "off",  # survives the death of the server, not of the machine: enough for throw-away data
    "dynamic_shared_memory_type": "mmap",  # in the data directory, so that nothing is left after SIGKILL
}
# A transaction has thousands of words. The wheel's Valkey has glibc's allocator, which keeps 7 pieces of a size at
# hand; jemalloc, with which Redis and Valkey are mostly built, keeps more.
_VALKEY_ENVIRONMENT = {"GLIBC_TUNABLES": "glibc.malloc.tcache_count=2000"}
_VALKEY_SETTINGS = {
    "bind": "127.0.0.1",
    "appendonly": "no",
    "save": '""',
    "maxmemory-policy": "noeviction",
}


class PostgresServer(ServerProcess):
    """A private Postgres cluster from the wheel's programs, in a temporary directory.

    The superuser is `postgres`; 127.0.0.1 and the Unix socket need no password. Clusters started by one process
    are copies of one template and share their system identifier unless `own_identity` is set.
    """

    name = "PostgreSQL"
    _signals: ClassVar[dict[StopMode, signal.Signals]] = {
        "smart": signal.SIGTERM,
        "fast": signal.SIGINT,
        "immediate": signal.SIGQUIT,
    }

    def __init__(self, directory: Path, programs: Path) -> None:
        super().__init__(directory)
        self.data_directory = directory / "data"
        self.socket_directory = directory
        self._programs = programs

    @classmethod
    def start(
        cls, *, version: int | None = None, settings: Mapping[str, str] | None = None, own_identity: bool = False
    ) -> PostgresServer:
        """Make a cluster of this major version (16 or 18; else the chosen one) and start it.

        `settings` go to postgresql.conf.

        Raises EmbeddedServersMissing, EmbeddedServerFailed.
        """
        programs = postgres_programs(version)
        server = cls(_new_directory("postgres"), programs)
        try:
            if own_identity:
                _initialise(programs, server.data_directory)
            else:
                _copy_with_owners(_template(programs), server.data_directory)
            with (server.data_directory / "postgresql.conf").open("a") as file:
                chosen = {**_POSTGRES_SETTINGS, "unix_socket_directories": str(server.socket_directory)}
                file.writelines(
                    f"{name} = {_quoted(value)}\n" for name, value in (chosen | dict(settings or {})).items()
                )
            server._start(move_port=True)
        except BaseException:
            server.close()
            raise
        return server

    @classmethod
    def backup_of(cls, primary: PostgresServer, *, settings: Mapping[str, str], standby: bool) -> PostgresServer:
        """Take a base backup of a running cluster and start it, as its standby or on its own; `settings` come last.

        Raises EmbeddedServerFailed.
        """
        server = cls(_new_directory("postgres"), primary._programs)
        try:
            log_file = server.directory / "basebackup.log"
            command = [str(primary._programs / "pg_basebackup"), "-D", str(server.data_directory)]
            command += ["-d", primary.dsn(), "-X", "stream", "-c", "fast", "--no-sync", *(["-R"] if standby else [])]
            if launch(command, server.directory, log_file, user=account()).wait(_INITIALISE_SECONDS) != 0:
                raise EmbeddedServerFailed(f"pg_basebackup failed:\n{tail(log_file.read_text(errors='replace'))}")
            own = {"unix_socket_directories": str(server.socket_directory), **settings}
            with (server.data_directory / "postgresql.auto.conf").open("a") as file:
                file.writelines(f"{name} = {_quoted(value)}\n" for name, value in own.items())
            server._start(move_port=True)
        except BaseException:
            server.close()
            raise
        return server

    def dsn(self, database: str = "postgres", *, user: str = "postgres", unix: bool = False) -> str:
        """A libpq keyword string, without password."""
        host = str(self.socket_directory) if unix else "127.0.0.1"
        return make_conninfo(host=host, port=self.port, user=user, dbname=database)

    def stop(self, mode: StopMode = "fast") -> None:
        """Shut down as `pg_ctl stop` does: `smart` waits for clients, `immediate` leaves a crash to recover from."""
        self._stop(self._signals[mode])

    def _launch(self) -> subprocess.Popen[bytes]:
        command = [str(self._programs / "postgres"), "-D", str(self.data_directory), "-p", str(self.port)]
        return launch(command, self.data_directory, self.log_file, user=account())

    def _is_ready(self) -> bool:
        # Through our own socket: 127.0.0.1 could be another server, as long as the port is not known to be ours.
        try:
            psycopg.connect(self.dsn(unix=True), connect_timeout=5).close()
        except psycopg.OperationalError:
            return False
        return True


class ValkeyServer(ServerProcess):
    """A private Valkey, speaking Redis' protocol, in a temporary directory. It keeps nothing on disk by default."""

    name = "Valkey"

    def __init__(self, directory: Path, program: Path) -> None:
        super().__init__(directory)
        self.socket_file = directory / "valkey.sock"
        self._program = program

    @classmethod
    def start(cls, *, settings: Mapping[str, str] | None = None) -> ValkeyServer:
        """Start a server; `settings` go to its configuration file as they are.

        Raises EmbeddedServersMissing, EmbeddedServerFailed.
        """
        program = valkey_program()
        server = cls(_new_directory("valkey"), program)
        try:
            chosen = {**_VALKEY_SETTINGS, "dir": str(server.directory), "unixsocket": str(server.socket_file)}
            lines = [f"{name} {value}\n" for name, value in (chosen | dict(settings or {})).items()]
            (server.directory / "valkey.conf").write_text("".join(lines))
            server._start(move_port=True)
        except BaseException:
            server.close()
            raise
        return server

    def url(self) -> str:
        """The address as `redis://`, database 0."""
        return f"redis://127.0.0.1:{self.port}/0"

    def stop(self) -> None:
        """Shut down with SIGTERM, which saves what the settings say is saved."""
        self._stop(signal.SIGTERM)

    def _launch(self) -> subprocess.Popen[bytes]:
        command = [str(self._program), str(self.directory / "valkey.conf"), "--port", str(self.port)]
        return launch(command, self.directory, self.log_file, environment=_VALKEY_ENVIRONMENT)

    def _is_ready(self) -> bool:
        try:
            with socket.socket(socket.AF_UNIX) as client:
                client.settimeout(5)
                client.connect(str(self.socket_file))
                client.sendall(b"PING\r\n")
                return client.recv(64).startswith(b"+PONG")  # not while loading its files
        except OSError:
            return False


_template_lock = threading.Lock()


def _template(programs: Path) -> Path:
    """A fresh cluster to copy from, initialised once per process and folder of programs."""
    template = scratch_directory() / f"template-{zlib.crc32(bytes(programs))}" / "data"
    with _template_lock:
        if not template.exists():
            _own_directory(template.parent)
            _initialise(programs, template)
    return template


def _initialise(programs: Path, data_directory: Path) -> None:
    options = ["--username=postgres", "--auth=trust", "--encoding=UTF8", "--locale=C", "--no-sync", "--no-instructions"]
    log_file = data_directory.with_name("initdb.log")
    command = [str(programs / "initdb"), f"--pgdata={data_directory}", *options]
    process = launch(command, data_directory.parent, log_file, user=account())
    if process.wait(_INITIALISE_SECONDS) != 0:
        shutil.rmtree(data_directory, ignore_errors=True)
        raise EmbeddedServerFailed(f"initdb failed:\n{tail(log_file.read_text(errors='replace'))}")


def _copy_with_owners(source: Path, target: Path) -> None:
    subprocess.run(["cp", "-a", str(source), str(target)], check=True, capture_output=True)


def _new_directory(name: str) -> Path:
    directory = Path(tempfile.mkdtemp(prefix=f"{name}-", dir=scratch_directory()))
    _own_directory(directory)
    return directory


def _own_directory(directory: Path) -> None:
    directory.mkdir(mode=0o700, exist_ok=True)
    user = account()
    if user is not None:
        shutil.chown(directory, user.pw_uid, user.pw_gid)


def _quoted(value: str) -> str:
    return "'" + value.replace("\\", "\\\\").replace("'", "''") + "'"
