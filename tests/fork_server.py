"""Commands as processes of their own that need not import anything: they are forked from one that has.

Starting Python and importing takes 0.4 s of a core, and the tests start a thousand commands. A forked one has its own
process id, signals, standard streams, environment and exit code, and runs the `main` that the installed command runs.
What forks has one thread, no connection and no file of the tests. This file is also what it runs.

Commands are started as users start them in the tests of `cdc demo`, of terminals, of arguments and of what is imported:
that each command imports what it needs is what tests/unit/test_imports.py is for.
"""

from __future__ import annotations

import atexit
import gc
import json
import os
import select
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from functools import cache
from importlib import import_module
from pathlib import Path
from tempfile import TemporaryFile
from typing import IO

_IMPORTED = (
    "cdc.cli", "cdc.check.command", "cdc.commands", "cdc.pipeline", "cdc.retention.forgetting", "cdc.status",
    "sinks.cli", "sinks.check", "sinks.dead_commands", "sinks.rebuild.command", "sinks.worker",
)  # fmt: skip
"""Before forking. What a command needs besides, it imports itself."""


class Forked:
    """A running command, with those methods of `subprocess.Popen` that the tests need."""

    def __init__(
        self,
        module: str,
        arguments: Sequence[str],
        environment: Mapping[str, str],
        stdout: IO[bytes],
        stderr: IO[bytes],
        directory: Path | None = None,
    ) -> None:
        """Run `module.main(arguments)` in a process with these standard streams, and nothing to read."""
        self.returncode: int | None = None
        request = {
            "module": module,
            "arguments": list(arguments),
            "environment": dict(environment),
            "directory": str(directory or Path.cwd()),
        }
        self._link, theirs = socket.socketpair()
        with theirs, _starting:
            _server().fork(theirs, stdout, stderr)
        self.pid = int(self._line())
        self._link.sendall(json.dumps(request).encode())
        self._link.shutdown(socket.SHUT_WR)

    def poll(self) -> int | None:
        """The exit code, negative for a signal; None while it runs."""
        return self._ended_within(0)

    def wait(self, timeout: float | None = None) -> int:
        """Wait for its end; returns the exit code. Raises subprocess.TimeoutExpired."""
        code = self._ended_within(timeout)
        if code is None:
            raise subprocess.TimeoutExpired(str(self.pid), timeout or 0)
        return code

    def send_signal(self, number: signal.Signals) -> None:
        """Send a signal, unless it has ended."""
        if self.poll() is None:
            with suppress(ProcessLookupError):  # it has ended just now
                os.kill(self.pid, number)

    def kill(self) -> None:
        """SIGKILL."""
        self.send_signal(signal.SIGKILL)

    def _ended_within(self, seconds: float | None) -> int | None:
        if self.returncode is None and select.select([self._link], [], [], seconds)[0]:
            self.returncode = int(self._line())
            self._link.close()
        return self.returncode

    def _line(self) -> str:
        line = b""
        while not line.endswith(b"\n"):
            if not (byte := self._link.recv(1)):
                raise RuntimeError("the process that forks has ended")
            line += byte
        return line.decode()


def run_to_end(
    module: str, arguments: Sequence[str], environment: Mapping[str, str], directory: Path, *, seconds: float
) -> tuple[int, str, str]:
    """Run a command; returns its exit code, standard output, and standard error. Raises subprocess.TimeoutExpired."""
    with TemporaryFile() as stdout, TemporaryFile() as stderr:
        command = Forked(module, arguments, environment, stdout, stderr, directory)
        try:
            return command.wait(seconds), read_whole(stdout), read_whole(stderr)
        finally:
            command.kill()


def read_whole(file: IO[bytes]) -> str:
    """What a command that has ended wrote to the file."""
    file.seek(0)
    return file.read().decode()


class _Server:
    """The process that forks."""

    def __init__(self) -> None:
        self._requests, theirs = socket.socketpair()
        with theirs:
            self._process = subprocess.Popen(
                [sys.executable, "-P", __file__], stdin=theirs.fileno(), stdout=subprocess.DEVNULL
            )

    def fork(self, link: socket.socket, stdout: IO[bytes], stderr: IO[bytes]) -> None:
        socket.send_fds(self._requests, [b"f"], [link.fileno(), stdout.fileno(), stderr.fileno()])

    def close(self) -> None:
        self._requests.close()
        self._process.wait()


_starting = threading.Lock()


@cache
def _server() -> _Server:
    made = _Server()
    atexit.register(made.close)
    return made


# --- in the process that forks ----------------------------------------------------------------------------------------


def _serve(requests: socket.socket) -> Callable[[], int]:
    """Fork for each request and tell how each child ended; returns in a child, and when nobody is left to ask."""
    for module in _IMPORTED:
        import_module(module)
    gc.freeze()  # so that the children leave the memory that they share as it is
    woken, wake = socket.socketpair()
    wake.setblocking(False)
    signal.set_wakeup_fd(wake.fileno())
    signal.signal(signal.SIGCHLD, lambda *_: None)  # only with a handler it wakes
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C in a terminal is for the tests
    running: dict[int, socket.socket] = {}
    while True:
        ready, _, _ = select.select([requests, woken], [], [])
        if woken in ready:
            woken.recv(1 << 16)
            _tell_ends(running)
        if requests in ready:
            asked, files, _, _ = socket.recv_fds(requests, 1, 3)
            if not asked:
                return lambda: _end(running)
            link = socket.socket(fileno=files[0])
            pid = os.fork()
            if pid == 0:
                signal.set_wakeup_fd(-1)
                for other in (requests, woken, wake, *running.values()):
                    other.close()
                return lambda: _run(link, *files[1:])
            link.sendall(b"%d\n" % pid)
            running[pid] = link
            for file in files[1:]:
                os.close(file)


def _tell_ends(running: dict[int, socket.socket]) -> None:
    while running:
        pid, status = os.waitpid(-1, os.WNOHANG)
        if pid == 0:
            return
        with running.pop(pid) as link, suppress(BrokenPipeError):  # nobody wants to know
            link.sendall(b"%d\n" % os.waitstatus_to_exitcode(status))


def _end(running: dict[int, socket.socket]) -> int:
    for pid in running:
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)
    return 0


def _run(link: socket.socket, stdout: int, stderr: int) -> int:
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    signal.signal(signal.SIGINT, signal.default_int_handler)
    with link, link.makefile("rb") as file:
        request = json.load(file)
    for file_number, name in ((os.open(os.devnull, os.O_RDONLY), 0), (stdout, 1), (stderr, 2)):
        os.dup2(file_number, name)
        os.close(file_number)
    os.environ.clear()
    os.environ.update(request["environment"])
    os.chdir(request["directory"])
    module = import_module(request["module"])
    sys.argv = [module.__file__ or "", *request["arguments"]]
    code: int = module.main(request["arguments"])
    return code


if __name__ == "__main__":
    sys.exit(_serve(socket.socket(fileno=os.dup(0)))())
