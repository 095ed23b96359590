"""A snapshot's progress: a bar in a terminal, a line every few seconds elsewhere."""

from __future__ import annotations

import logging
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, TextIO

from cdc.pipeline import Figures
from cdc.snapshot_run import Run

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
        yield _Bar(progress).observe


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


class _Rate:
    """Rows a second and time left of the run in hand, since this process took it up."""

    def __init__(self) -> None:
        self._run = ""
        self._first_rows = 0
        self._since = 0.0

    def describe(self, run: Run) -> str:
        now = time.monotonic()
        if run.id != self._run:
            self._run, self._first_rows, self._since = run.id, run.rows, now
        rate = (run.rows - self._first_rows) / max(now - self._since, 0.001)
        text = f"{run.rows:,} rows, {run.share:.0%}"
        if rate > 0:
            text += f", {rate:,.0f} rows/s"
            if 0 < run.share < 1:
                text += f", about {run.rows / run.share * (1 - run.share) / rate:,.0f} s left"
        return text


class _Lines:
    def __init__(self) -> None:
        self._rate = _Rate()
        self._told_at = time.monotonic()

    def observe(self, figures: Figures) -> None:
        if figures.run is None:
            return
        text = self._rate.describe(figures.run)
        if time.monotonic() - self._told_at >= LINE_INTERVAL_SECONDS:
            self._told_at = time.monotonic()
            waits = f" (waits for {figures.waiting_for})" if figures.waiting_for else ""
            log.info("snapshot of %s: %s%s", figures.run.event, text, waits)


class _Bar:
    def __init__(self, progress: Progress) -> None:
        self._progress = progress
        self._rate = _Rate()
        self._task: TaskID | None = None
        self._run = ""

    def observe(self, figures: Figures) -> None:
        run = figures.run
        if run is None or run.id != self._run:
            if self._task is not None:
                self._progress.remove_task(self._task)
            self._task, self._run = None, ""
        if run is not None:
            if self._task is None:
                self._task = self._progress.add_task(f"snapshot of {run.event}", total=1.0, figures="")
                self._run = run.id
            figures_text = figures.waiting_for or self._rate.describe(run)
            self._progress.update(self._task, completed=run.share, figures=figures_text)
