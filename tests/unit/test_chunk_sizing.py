"""How many rows the next chunk has."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cdc.snapshot import sizing
from cdc.snapshot.sizing import LEAST_ROWS, MOST_ROWS, next_rows, publishable_rows

BUDGET = 8 << 20


@pytest.mark.parametrize(
    ("limit", "rows", "size_bytes", "seconds", "expected"),
    [
        (2_000, 2_000, 100_000, 0.01, 4_000),  # fast: twice as many, and not more at a time
        (4_000, 4_000, 200_000, 1.0, 2_000),  # slow: as many as half a second gives
        (4_000, 4_000, 200_000, 0.4, 5_000),
        (4_000, 1_000, 8 << 20, 0.2, 900),  # cut by its bytes: what fits, with some room
        (4_000, 4_000, 200_000, 0.0, 8_000),
        (4_000, 10, 8 << 20, 0.001, LEAST_ROWS),  # large rows: the bytes still cut the chunk
        (MOST_ROWS, MOST_ROWS, 1_000, 0.001, MOST_ROWS),
        (4_000, 0, 0, 0.001, 4_000),
    ],
)
def test_the_next_chunk_takes_half_a_second_within_its_bytes(
    limit: int, rows: int, size_bytes: int, seconds: float, expected: int
) -> None:
    assert next_rows(limit, rows, size_bytes, seconds, BUDGET) == expected


@given(st.integers(LEAST_ROWS, MOST_ROWS), st.floats(1e-6, 1e-3), st.integers(20, 100_000))
def test_rows_of_one_kind_soon_come_in_chunks_of_one_size(limit: int, seconds_a_row: float, row_bytes: int) -> None:
    fitting = BUDGET // row_bytes
    for _ in range(12):
        rows = max(1, min(limit, fitting))
        limit = next_rows(limit, rows, rows * row_bytes, rows * seconds_a_row, BUDGET)
    settled = next_rows(limit, rows := max(1, min(limit, fitting)), rows * row_bytes, rows * seconds_a_row, BUDGET)
    assert abs(settled - limit) <= 1
    assert limit == LEAST_ROWS or limit * seconds_a_row <= sizing.CHUNK_SECONDS * 1.01
    assert limit == LEAST_ROWS or limit * row_bytes <= BUDGET


@pytest.mark.parametrize(
    ("rows", "seconds", "most"),
    [(10_000, 0.5, 5_000), (1_000, 30.0, LEAST_ROWS), (100, 0.0, 25_000), (50_000, 0.01, MOST_ROWS)],
)
def test_a_chunk_keeps_changes_waiting_for_a_quarter_of_a_second(rows: int, seconds: float, most: int) -> None:
    assert publishable_rows(rows, seconds) == most
