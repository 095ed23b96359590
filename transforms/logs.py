"""How log lines look, on both edges. Values of rows are never logged."""

from __future__ import annotations

import json
import logging
from datetime import UTC, datetime
from typing import Literal


class _JsonFormatter(logging.Formatter):
    """One JSON object a line."""

    def format(self, record: logging.LogRecord) -> str:
        line = {
            "at": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": record.getMessage(),
        }
        if record.exc_info:
            line["exception"] = self.formatException(record.exc_info)
        return json.dumps(line, ensure_ascii=False)


def log_formatter(style: Literal["text", "json"]) -> logging.Formatter:
    """The formatter of a `--log-format`."""
    if style == "json":
        return _JsonFormatter()
    return logging.Formatter("%(asctime)s %(levelname)-7s %(message)s", datefmt="%H:%M:%S")
