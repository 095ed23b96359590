"""Counts and rates for people."""

from __future__ import annotations


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
