"""A duration as the configuration file writes it: a whole number and a unit, like `1h`."""

from __future__ import annotations

import re
from datetime import timedelta
from typing import Annotated

from pydantic import BeforeValidator
from pydantic_core import PydanticCustomError

_UNITS = {"s": "seconds", "m": "minutes", "h": "hours", "d": "days"}
_WRITTEN = re.compile(r"(\d{1,9})([smhd])", re.ASCII)
EXPECTED = 'a duration like "1h": a whole number and s, m, h or d'


def parse_duration(text: str) -> timedelta:
    """Read the written form. Raises ValueError on anything else."""
    found = _WRITTEN.fullmatch(text)
    if found is None:
        raise ValueError(f"expected {EXPECTED}, got other text")
    return timedelta(**{_UNITS[found[2]]: int(found[1])})


def _duration(value: object) -> timedelta:
    if isinstance(value, timedelta):
        return value
    if not isinstance(value, str):
        raise PydanticCustomError("string_type", "not a text")
    return parse_duration(value)


Duration = Annotated[timedelta, BeforeValidator(_duration)]
"""A field that holds a timedelta and is written like `1h`."""
