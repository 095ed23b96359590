"""Log lines about a sink that fills its replicas: a large table takes long, and there is nothing else to tell."""

from __future__ import annotations

import logging
from collections.abc import Sequence

log = logging.getLogger(__name__)

LINE_INTERVAL_SECONDS = 10.0


class FillingLog:
    """Tells about every LINE_INTERVAL_SECONDS how far it is, as long as snapshot runs are in hand."""

    def __init__(self) -> None:
        self._told: tuple[float, int] | None = None
        """When a line was due last, and the rows written by then; None: no run was in hand."""

    def observe(self, events: Sequence[str], rows: int, now: float) -> None:
        """`events`: those with a run in hand; `rows`: all that were written so far; `now`: monotonic seconds."""
        if not events or self._told is None:
            self._told = (now, rows) if events else None
            return
        before, written = self._told
        if now - before >= LINE_INTERVAL_SECONDS:
            rate = (rows - written) / (now - before)
            log.info(
                "filling replicas of %s: %s rows written, %s rows/s", ", ".join(events), f"{rows:,}", f"{rate:,.0f}"
            )
            self._told = (now, rows)
