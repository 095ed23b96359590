"""Sizes, counts and rates, as `cdc init` writes them."""

from __future__ import annotations

import pytest

from cdc.init.amounts import rate_text, rows_text
from cdc.wording import size


@pytest.mark.parametrize(
    ("count", "expected"),
    [
        (0, "0 B"),
        (1024, "1.0 kB"),
        (10_240, "10 kB"),
        (1_500_000, "1.4 MB"),
        (5 << 40, "5.0 TB"),
        (9 << 50, "9,216 TB"),
    ],
)
def test_sizes_read_well(count: int, expected: str) -> None:
    assert size(count) == expected


@pytest.mark.parametrize(
    ("writes", "days", "expected"),
    [
        (0, 10.0, "no writes seen"),
        (1, None, "1 write counted"),
        (1234, None, "1,234 writes counted"),
        (12_000, 10.0, "about 1,200 writes a day"),
        (3, 10.0, "less than one write a day"),
        (50, 0.1, "50 writes in 2 h"),
        (50, 0.001, "50 writes in 1 h"),
    ],
)
def test_rates_read_well(writes: int, days: float | None, expected: str) -> None:
    assert rate_text(writes, days) == expected


def test_rows_are_an_estimate() -> None:
    assert [rows_text(1), rows_text(12_000)] == ["about 1 row", "about 12,000 rows"]
