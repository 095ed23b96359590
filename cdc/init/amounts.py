"""Sizes, counts and rates for people."""

from __future__ import annotations

from typing import Final

_UNITS: Final = ("kB", "MB", "GB", "TB")


def size_text(size_bytes: int) -> str:
    """`512 bytes`, `1.4 MB`: two digits at least."""
    if size_bytes < 1024:
        return f"{size_bytes} bytes"
    amount, units = size_bytes / 1024, iter(_UNITS)
    unit = next(units)
    while amount >= 1000 and unit != _UNITS[-1]:
        amount, unit = amount / 1024, next(units)
    return f"{amount:.1f} {unit}" if amount < 10 else f"{amount:,.0f} {unit}"


def rows_text(rows: int) -> str:
    """An estimate of the planner's."""
    return "about 1 row" if rows == 1 else f"about {rows:,} rows"


def rate_text(writes: int, counted_days: float | None) -> str:
    """How much is written to a table; rates of less than a day would say little, so those are given as counted."""
    if writes == 0:
        return "no writes seen"
    counted = "1 write" if writes == 1 else f"{writes:,} writes"
    if counted_days is None:
        return f"{counted} counted"
    if counted_days < 1:
        return f"{counted} in {max(1, round(counted_days * 24))} h"
    if writes < counted_days:
        return "less than one write a day"
    return f"about {round(writes / counted_days):,} writes a day"
