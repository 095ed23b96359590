"""Dates and timestamps: their text in Postgres' ISO form, in UTC, as tuples that compare as Postgres compares."""

from __future__ import annotations

import math
import re
from datetime import UTC, date, datetime, timedelta, timezone
from typing import Final

Moment = tuple[float, ...]
"""Year (0 is 1 BC), month, day, and for timestamps hour, minute, second, microsecond; `(inf,)` for the infinities."""

_INFINITE: Final[dict[str, Moment]] = {"infinity": (math.inf,), "-infinity": (-math.inf,)}
_VALUE: Final = re.compile(
    rb"(\d{4,})-(\d\d)-(\d\d)(?: (\d\d):(\d\d):(\d\d)(?:\.(\d{1,6}))?)?(?:\+00)?( BC)?", re.ASCII
)
_DAY: Final = r"(\d{4})-(\d\d)-(\d\d)"
_LITERAL: Final = re.compile(
    rf"{_DAY}(?:[ T](\d\d):(\d\d)(?::(\d\d)(?:\.(\d{{1,6}}))?)?)?(Z|[+-]\d\d(?::?\d\d)?)?", re.ASCII
)


def read_value(text: bytes) -> Moment:
    """A value as Postgres writes it. Raises ValueError for other session settings than ours."""
    if (infinite := _INFINITE.get(text.decode("ascii", "replace"))) is not None:
        return infinite
    if (parts := _VALUE.fullmatch(text)) is None:
        raise ValueError("a date or timestamp that is not in the ISO form, in UTC")
    year, month, day, hour, minute, second, fraction, before_christ = parts.groups()
    date_ = (1 - int(year) if before_christ else int(year), int(month), int(day))
    if hour is None:
        return date_
    return *date_, int(hour), int(minute), int(second), int((fraction or b"").ljust(6, b"0"))


def read_date(text: str) -> tuple[str, Moment]:
    """A literal for a date, and how it compares. Raises ValueError."""
    if (infinite := _INFINITE.get(text)) is not None:
        return text, infinite
    if (parts := re.fullmatch(_DAY, text, re.ASCII)) is None:
        raise ValueError("a date is written 'YYYY-MM-DD'")
    year, month, day = map(int, parts.groups())
    date(year, month, day)
    return text, (year, month, day)


def read_timestamp(text: str) -> tuple[str, Moment]:
    """A literal for a timestamp without time zone, and how it compares. Raises ValueError."""
    if (infinite := _INFINITE.get(text)) is not None:
        return text, infinite
    moment = _moment(text)
    if moment.tzinfo is not None:
        raise ValueError("the column has no time zone, so the literal must not name one")
    return _written(moment)


def read_timestamptz(text: str) -> tuple[str, Moment]:
    """A literal for a timestamp with time zone, which it must name, and how it compares. Raises ValueError."""
    if (infinite := _INFINITE.get(text)) is not None:
        return text, infinite
    moment = _moment(text)
    if moment.tzinfo is None:
        raise ValueError("the column has a time zone, so the literal must name one, as in '2026-05-01T00:00:00Z'")
    try:
        written, key = _written(moment.astimezone(UTC).replace(tzinfo=None))
    except OverflowError:
        raise ValueError("out of range") from None
    return f"{written}+00", key


def _moment(text: str) -> datetime:
    if (parts := _LITERAL.fullmatch(text)) is None:
        raise ValueError("a timestamp is written 'YYYY-MM-DD HH:MM:SS', with at most six digits behind the seconds")
    *numbers, fraction, zone = parts.groups()
    if numbers[3] is None and zone is not None:
        raise ValueError("a time zone needs a time, as in '2026-05-01T00:00:00Z'")
    year, month, day, hour, minute, second = (int(number or 0) for number in numbers)
    return datetime(year, month, day, hour, minute, second, int((fraction or "").ljust(6, "0")), tzinfo=_zone(zone))


def _zone(text: str | None) -> timezone | None:
    if text is None or text == "Z":
        return UTC if text else None
    hours, minutes = int(text[1:3]), int(text[-2:]) if len(text) > 3 else 0
    if hours > 15 or minutes > 59:  # Postgres' own limit
        raise ValueError("a time zone is at most 15:59 away from UTC")
    offset = timedelta(hours=hours, minutes=minutes)
    return timezone(-offset if text[0] == "-" else offset)


def _written(moment: datetime) -> tuple[str, Moment]:
    parts = moment.year, moment.month, moment.day, moment.hour, moment.minute, moment.second, moment.microsecond
    return moment.isoformat(" "), parts
