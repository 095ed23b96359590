"""A temporary directory that disappears, with every process at work in it, when its owner ends.

The owner starts this file as a second process, the janitor, and alone holds the other end of its standard input.
That pipe ends when the owner does, SIGKILL included; the janitor then ends the servers and removes the directory.
Rejected: PR_SET_PDEATHSIG. It is Linux only, fires already when the thread that forked ends, and leaves the files.

A process belongs to a directory when it works (`cwd`) in it. Postgres with all its backends, initdb and Valkey do.
This file imports nothing of statecast, so that the janitor is ready at once.
"""

from __future__ import annotations

import atexit
import ctypes
import functools
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
from contextlib import suppress
from pathlib import Path

with suppress(ModuleNotFoundError):  # then the servers are missing as well, and `binaries` says so
    import psutil

_SHUTDOWN_SECONDS = 5.0  # an immediate shutdown of Postgres takes milliseconds
_POLL_SECONDS = 0.01
_IPC_RMID = 0  # <sys/ipc.h>, on Linux and macOS alike
_making = threading.Lock()


def scratch_directory() -> Path:
    """This process' own directory: made at the first call, removed when the process ends, however it ends."""
    with _making:
        return _scratch_directory_of(os.getpid())  # a forked child gets its own


@functools.cache
def _scratch_directory_of(pid: int) -> Path:
    directory = Path(tempfile.mkdtemp(prefix="statecast-")).resolve()
    directory.chmod(0o711)  # the account that runs Postgres for root has to pass through
    janitor = subprocess.Popen(
        [sys.executable, "-P", __file__, str(directory)],
        stdin=subprocess.PIPE,
        cwd="/",
        start_new_session=True,  # Ctrl-C in a terminal reaches the owner only
    )

    def end() -> None:
        if os.getpid() == pid:
            janitor.communicate()

    atexit.register(end)
    return directory


def processes_in(directory: Path) -> list[psutil.Process]:
    """Every live process that works in `directory` or below it."""
    found = []
    for process in psutil.process_iter():
        with suppress(psutil.Error, OSError):  # it ended meanwhile, or belongs to someone else
            if Path(process.cwd()).is_relative_to(directory):
                found.append(process)
    return found


def kill_processes_in(directory: Path) -> None:
    """SIGKILL every process that works in `directory` and return when none is left."""
    while processes := processes_in(directory):
        for process in processes:
            with suppress(psutil.NoSuchProcess):
                process.kill()
        time.sleep(_POLL_SECONDS)


def discard(directory: Path) -> None:
    """End every process that works in `directory`, then remove it with all that Postgres keeps elsewhere."""
    for process in processes_in(directory):
        with suppress(psutil.NoSuchProcess):
            if _is_postmaster(process):
                process.send_signal(signal.SIGQUIT)  # immediate shutdown: takes its backends along
    # Not psutil.wait_procs: it would also wait for the parent, or init, to collect the exit codes.
    deadline = time.monotonic() + _SHUTDOWN_SECONDS
    while any(_is_postmaster(process) for process in processes_in(directory)) and time.monotonic() < deadline:
        time.sleep(_POLL_SECONDS)
    kill_processes_in(directory)
    for pid_file in directory.rglob("postmaster.pid"):  # there only after an unclean end
        _remove_shared_memory(pid_file)
    with suppress(FileNotFoundError):
        shutil.rmtree(directory)


def _is_postmaster(process: psutil.Process) -> bool:
    try:
        parent = process.parent()
        return process.name() == "postgres" and (parent is None or parent.name() != "postgres")
    except psutil.Error:
        return False


def _remove_shared_memory(pid_file: Path) -> None:
    """Free the small System V segment by which Postgres notices a second postmaster.

    Source: line 7 of postmaster.pid, https://www.postgresql.org/docs/current/storage-file-layout.html
    """
    lines = pid_file.read_text().splitlines()
    if len(lines) > 6 and (words := lines[6].split()):
        ctypes.CDLL(None).shmctl(int(words[-1]), _IPC_RMID, None)


def _janitor(directory: Path) -> None:
    sys.stdin.buffer.read()  # returns when the owner has ended
    discard(directory)
    # A server that was being started just then may have missed its signal.
    time.sleep(0.2)
    discard(directory)


if __name__ == "__main__":
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)
    _janitor(Path(sys.argv[1]))
