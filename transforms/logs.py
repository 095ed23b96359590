"""How log lines look, on both edges. Values of rows are never logged."""

from __future__ import annotations

import json
import logging
from datetime import UTC, datetime
from typing import Literal

_NOT_EXTRA = frozenset(vars(logging.makeLogRecord({}))) | {"message", "asctime", "taskName"}
"""What every record has; anything else was given with `extra`."""


class _JsonFormatter(logging.Formatter):
    """One JSON object a line, in ASCII, so that nothing in it can break a line."""

    def format(self, record: logging.LogRecord) -> str:
        line: dict[str, object] = {name: value for name, value in vars(record).items() if name not in _NOT_EXTRA}
        line |= {
            "at": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": record.getMessage(),
        }
        if record.exc_info:
            line["exception"] = self.formatException(record.exc_info)
        if record.stack_info:
            line["stack"] = self.formatStack(record.stack_info)
        return json.dumps(line, default=str)


def log_formatter(style: Literal["text", "json"]) -> logging.Formatter:
    """The formatter of a `--log-format`."""
    if style == "json":
        return _JsonFormatter()
    return logging.Formatter("%(asctime)s %(levelname)-7s %(message)s", datefmt="%H:%M:%S")
