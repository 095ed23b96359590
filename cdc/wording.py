"""Sizes and durations as people say them."""

from __future__ import annotations

from typing import Final

_UNITS: Final = ("kB", "MB", "GB", "TB")


def size(count: float) -> str:
    """Bytes as people read them: `512 B`, `1.4 MB`, `84 GB`; two digits at least."""
    if count < 1024:
        return f"{count:.0f} B"
    amount, units = count / 1024, iter(_UNITS)
    unit = next(units)
    while amount >= 1000 and unit != _UNITS[-1]:
        amount, unit = amount / 1024, next(units)
    return f"{amount:.1f} {unit}" if amount < 10 else f"{amount:,.0f} {unit}"


def ago(seconds: float) -> str:
    """A duration as people say it."""
    whole = max(0, int(seconds))
    days, hours, minutes = whole // 86400, whole // 3600 % 24, whole // 60 % 60
    if days:
        return f"{days} d {hours} h"
    if hours:
        return f"{hours} h {minutes} min"
    return f"{minutes} min {whole % 60} s" if minutes else f"{whole} s"


def counted(number: int, thing: str) -> str:
    """`1 table`, `2 tables`."""
    return f"1 {thing}" if number == 1 else f"{number:,} {thing}s"
