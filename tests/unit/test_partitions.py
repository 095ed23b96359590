"""Which changes of a table's partitions move rows without a word in the log."""

from __future__ import annotations

import pytest

from cdc.partitions import ATTACHED, GONE, why_rows_moved


@pytest.mark.parametrize(
    ("before", "now", "why"),
    [
        ([], {}, None),
        ([1, 2], {1: False, 2: True}, None),
        ([1], {1: True, 2: False}, None),
        ([1], {1: False, 2: True}, ATTACHED),
        ([1, 2], {1: False}, GONE),
        ([1, 2], {1: False, 3: True}, GONE),
    ],
)
def test_rows_move_with_a_partition_that_was_attached_or_is_gone(
    before: list[int], now: dict[int, bool], why: str | None
) -> None:
    assert why_rows_moved(before, now) == why
