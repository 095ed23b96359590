"""One server process: started, stopped, killed, started again, and gone without a trace in the end."""

from __future__ import annotations

import atexit
import os
import pwd
import random
import signal
import socket
import subprocess
import time
from abc import ABC, abstractmethod
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import ClassVar, Self

from cdc.demo.scratch import discard, kill_processes_in
from transforms.errors import StatecastError

_START_SECONDS = 30.0
_STOP_SECONDS = 30.0
_POLL_SECONDS = 0.02
_LOG_TAIL_LINES = 20
_PORTS = range(20_000, 32_000)  # below the ephemeral ports, so that no client takes one while its server is down
# Nothing of the caller's PG* variables, time zone or language.
_ENVIRONMENT = {"PATH": "/usr/local/bin:/usr/bin:/bin", "LC_ALL": "C", "TZ": "UTC"}


class EmbeddedServerFailed(StatecastError):
    """An embedded server did not start, or did not stop."""

    remedy = "Read the server's last log lines above; a full disk or too little memory are the usual causes."


_open_servers: set[ServerProcess] = set()


@atexit.register
def _close_all() -> None:
    for server in list(_open_servers):
        if server._owner == os.getpid():  # not in a forked child
            server.close()


class ServerProcess(ABC):
    """One server process in a directory of its own. Subclasses say how to start it and when it is ready."""

    name: ClassVar[str]

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.log_file = directory / "server.log"
        self.port = _free_port()
        self._process: subprocess.Popen[bytes] | None = None
        self._owner = os.getpid()
        _open_servers.add(self)

    @property
    def pid(self) -> int:
        """The server's process id (of the postmaster). Raises EmbeddedServerFailed when it is not running."""
        if self._process is None or self._process.poll() is not None:
            raise EmbeddedServerFailed(f"{self.name} is not running")
        return self._process.pid

    @abstractmethod
    def _launch(self) -> subprocess.Popen[bytes]: ...

    @abstractmethod
    def _is_ready(self) -> bool: ...

    def start_again(self) -> None:
        """Start after `stop` or `kill`: same directory, same port. Returns when the server answers."""
        if self._process is not None and self._process.poll() is None:
            raise EmbeddedServerFailed(f"{self.name} is running already", remedy="Stop or kill it first.")
        self._start(move_port=False)

    def kill(self) -> None:
        """SIGKILL the server and all its children. Returns when none is left."""
        if self._process is not None:
            self._process.kill()  # first, so that it starts no new children
            self._process.wait()
            self._process = None
        kill_processes_in(self.directory)

    def close(self) -> None:
        """Stop at once and remove everything from disk. May be called twice."""
        discard(self.directory)
        if self._process is not None:
            self._process.wait()
            self._process = None
        _open_servers.discard(self)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    def _start(self, *, move_port: bool) -> None:
        deadline = time.monotonic() + _START_SECONDS
        while True:
            log_start = self.log_file.stat().st_size if self.log_file.exists() else 0
            self._process = self._launch()
            while self._process.poll() is None and time.monotonic() < deadline:
                if self._is_ready():
                    return
                time.sleep(_POLL_SECONDS)
            ended = self._process.poll() is not None
            self.kill()
            log = self.log_file.read_bytes()[log_start:].decode(errors="replace")
            if not ended or "Address already in use" not in log or time.monotonic() > deadline:
                happened = "ended while starting" if ended else f"was not ready after {_START_SECONDS:.0f} s"
                raise EmbeddedServerFailed(f"{self.name} {happened}; its log ends:\n{tail(log)}")
            if move_port:
                self.port = _free_port()
            else:
                time.sleep(_POLL_SECONDS)

    def _stop(self, number: signal.Signals) -> None:
        if self._process is None:
            return
        self._process.send_signal(number)
        try:
            self._process.wait(_STOP_SECONDS)
        except subprocess.TimeoutExpired:
            log = self.log_file.read_text(errors="replace")
            raise EmbeddedServerFailed(
                f"{self.name} did not stop within {_STOP_SECONDS:.0f} s; its log ends:\n{tail(log)}"
            ) from None
        self._process = None


def launch(
    command: list[str],
    directory: Path,
    log_file: Path,
    *,
    user: pwd.struct_passwd | None = None,
    environment: Mapping[str, str] | None = None,
) -> subprocess.Popen[bytes]:
    """Start a program that works in `directory` and writes to the end of `log_file`, as `user` when given.

    `environment`: what it is given besides that of all servers.
    """
    with log_file.open("ab") as log:
        return subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            cwd=directory,
            env=_ENVIRONMENT | dict(environment or {}),
            user=user and user.pw_uid,
            group=user and user.pw_gid,
            extra_groups=[] if user else None,
            start_new_session=True,  # Ctrl-C in a terminal reaches the owner, which then stops its servers in order
        )


def _free_port() -> int:
    """A port that nobody listens on now. Someone may take it before the server does: `_start` then takes another."""
    while True:
        port = random.choice(_PORTS)
        with socket.socket() as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind(("127.0.0.1", port))
            except OSError:
                continue
            return port


def tail(log: str) -> str:
    """The last lines of a log, for an error message."""
    return "\n".join(log.splitlines()[-_LOG_TAIL_LINES:])
