"""The commands of the demo, each a process of its own, as a user would start them."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Self

import cdc
from cdc.demo.server_process import tail
from transforms.errors import EXIT_DIFFERENCE, StatecastError

_STOP_SECONDS = 6.0
_PACKAGES = Path(cdc.__file__).parents[1]


class CommandEnded(StatecastError):
    """A command ended while it was needed."""

    exit_code = EXIT_DIFFERENCE
    remedy = "Read its last log lines above."


class Command:
    """One running command. It works in `directory`, so that the janitor finds it if the demo is killed."""

    def __init__(
        self, title: str, module: str, arguments: Sequence[str], directory: Path, dsns: Mapping[str, str]
    ) -> None:
        """Start `python -m module arguments`; its log goes to a file of the directory."""
        self.title = title
        self._log_file = directory / f"{title.replace(' ', '-')}.log"
        environment = {name: value for name, value in os.environ.items() if not name.startswith("PG")}
        environment |= {"PYTHONPATH": str(_PACKAGES), **dsns}
        with self._log_file.open("wb") as log:
            self._process = subprocess.Popen(
                [sys.executable, "-m", module, *arguments],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                cwd=directory,
                env=environment,
                start_new_session=True,  # Ctrl-C in a terminal reaches the demo only, which then stops all in order
            )

    def check(self) -> None:
        """Raise CommandEnded with the last lines of its log when it has ended."""
        code = self._process.poll()
        if code is not None:
            log = tail(self._log_file.read_text(errors="replace"))
            raise CommandEnded(f"`{self.title}` ended with exit code {code}; its log ends:\n{log}")

    def ask_to_stop(self) -> None:
        """Send SIGTERM."""
        self._process.terminate()

    def wait(self, deadline: float) -> None:
        """Wait until it has ended; kill it at the deadline."""
        try:
            self._process.wait(max(0.0, deadline - time.monotonic()))
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()


class Commands:
    """All commands of the demo; stopped together at the end of the `with` block."""

    def __init__(self, config_file: Path, dsns: Mapping[str, str], sinks: Sequence[str]) -> None:
        self._config_file = config_file
        self._dsns = dsns
        self._sinks = sinks
        self._commands: list[Command] = []

    def __enter__(self) -> Self:
        self._start("cdc run", "cdc.cli", "run")
        for sink in self._sinks:
            self._start(f"cdc-sink run {sink}", "sinks.cli", "run", sink)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        for command in self._commands:
            command.ask_to_stop()
        deadline = time.monotonic() + _STOP_SECONDS
        for command in self._commands:
            command.wait(deadline)

    def check(self) -> None:
        """Raise CommandEnded when one of them has ended."""
        for command in self._commands:
            command.check()

    def _start(self, title: str, module: str, *arguments: str) -> None:
        options = ["-c", self._config_file.name]
        directory = self._config_file.parent
        self._commands.append(Command(title, module, [*options, *arguments], directory, self._dsns))
