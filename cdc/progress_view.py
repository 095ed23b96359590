"""A snapshot's progress: a bar in a terminal, a line every few seconds elsewhere."""

from __future__ import annotations

import logging
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, TextIO

from cdc.figures import Figures
from cdc.snapshot.run import Run

if TYPE_CHECKING:
    from rich.progress import Progress, TaskID

log = logging.getLogger(__name__)

LINE_INTERVAL_SECONDS = 5.0


@contextmanager
def progress_view(stream: TextIO) -> Iterator[Callable[[Figures], None]]:
    """What to call with the reader's figures about once a second."""
    if not stream.isatty():
        yield _Lines().observe
        return
    from rich.console import Console  # not before it is needed: a reader beside a database has no terminal
    from rich.progress import BarColumn, Progress, TextColumn

    columns = [TextColumn("{task.description}"), BarColumn(), TextColumn("{task.fields[figures]}")]
    with Progress(*columns, console=Console(file=stream), transient=True) as progress, _logs_above_the_bar():
        yield _Bars(progress).observe


@contextmanager
def _logs_above_the_bar() -> Iterator[None]:
    """Log through what rich has put in the place of standard error."""
    handlers = [handler for handler in logging.getLogger().handlers if isinstance(handler, logging.StreamHandler)]
    before = [handler.setStream(sys.stderr) for handler in handlers]
    try:
        yield
    finally:
        for handler, stream in zip(handlers, before, strict=True):
            handler.setStream(stream or sys.__stderr__)


class _Rates:
    """Rows a second and time left of each run, since this process took it up."""

    def __init__(self) -> None:
        self._began: dict[str, tuple[int, float]] = {}
        """Run -> its rows and the time then."""

    def describe(self, run: Run) -> str:
        now = time.monotonic()
        rows, since = self._began.setdefault(run.id, (run.rows, now))
        rate = (run.rows - rows) / max(now - since, 0.001)
        text = f"{run.rows:,} rows, {run.share:.0%}"
        if rate > 0:
            text += f", {rate:,.0f} rows/s"
            if 0 < run.share < 1:
                text += f", about {run.rows / run.share * (1 - run.share) / rate:,.0f} s left"
        return text


class _Lines:
    def __init__(self) -> None:
        self._rates = _Rates()
        self._told_at = time.monotonic()

    def observe(self, figures: Figures) -> None:
        told = {run.title: self._rates.describe(run) for run in figures.runs}
        if time.monotonic() - self._told_at < LINE_INTERVAL_SECONDS:
            return
        self._told_at = time.monotonic()
        for title, text in told.items():
            log.info("snapshot of %s: %s", title, text)
        if figures.waiting_for:
            log.info("snapshot waits for %s", figures.waiting_for)


class _Bars:
    def __init__(self, progress: Progress) -> None:
        self._progress = progress
        self._rates = _Rates()
        self._tasks: dict[str, TaskID] = {}
        """Of each run."""

    def observe(self, figures: Figures) -> None:
        ended = self._tasks.keys() - {run.id for run in figures.runs}
        for run_id in ended:
            self._progress.remove_task(self._tasks.pop(run_id))
        for run in figures.runs:
            if run.id not in self._tasks:
                self._tasks[run.id] = self._progress.add_task(f"snapshot of {run.title}", total=1.0, figures="")
            text = self._rates.describe(run)
            self._progress.update(self._tasks[run.id], completed=run.share, figures=text)
