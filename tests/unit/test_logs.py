"""Log lines for machines: one JSON object a line, whatever was logged."""

from __future__ import annotations

import io
import json
import logging
from datetime import datetime
from typing import Any

import pytest

from transforms.logs import log_formatter


@pytest.fixture
def written() -> tuple[logging.Logger, io.StringIO]:
    output = io.StringIO()
    handler = logging.StreamHandler(output)
    handler.setFormatter(log_formatter("json"))
    logger = logging.Logger("cdc.session")
    logger.addHandler(handler)
    return logger, output


def lines(output: io.StringIO) -> list[dict[str, Any]]:
    return [json.loads(line) for line in output.getvalue().splitlines()]


def test_a_line_has_time_level_logger_and_message(written: tuple[logging.Logger, io.StringIO]) -> None:
    logger, output = written
    logger.warning("stream %s: %d", "customer", 3)
    (line,) = lines(output)
    assert datetime.fromisoformat(line.pop("at")).tzinfo is not None
    assert line == {"level": "warning", "logger": "cdc.session", "message": "stream customer: 3"}


def test_extra_fields_stand_beside_the_others_and_replace_none(written: tuple[logging.Logger, io.StringIO]) -> None:
    logger, output = written
    logger.info("snapshot", extra={"event": "customer.v1", "rows": 5, "level": "loud", "when": datetime(2026, 1, 2)})
    (line,) = lines(output)
    assert (line["event"], line["rows"], line["level"]) == ("customer.v1", 5, "info")
    assert line["when"] == "2026-01-02 00:00:00"


def test_a_traceback_or_a_message_of_many_lines_stays_one_line(written: tuple[logging.Logger, io.StringIO]) -> None:
    logger, output = written
    try:
        raise ValueError("first\nsecond\u2028third")
    except ValueError:
        logger.exception("failed\nhere", stack_info=True)
    assert output.getvalue().count("\n") == 1
    line = json.loads(output.getvalue())
    assert line["message"] == "failed\nhere"
    assert line["exception"].startswith("Traceback")
    assert line["exception"].endswith("third")
    assert "test_logs" in line["stack"]


def test_bytes_that_are_no_text_are_still_a_line(written: tuple[logging.Logger, io.StringIO]) -> None:
    logger, output = written
    logger.info("odd: %s", "\udc80")
    assert json.loads(output.getvalue())["message"] == "odd: \udc80"
    output.getvalue().encode()  # a terminal or file in UTF-8 takes it
