"""Where a batch ends."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from sinks.batch import ripe_count
from sinks.entries import Entries, Entry
from tests.resp import WAYS

Make = Callable[[list[Entry]], Entries]
pytestmark = pytest.mark.parametrize("made", WAYS)


def entries(*ids: str) -> list[Entry]:
    """`24-1` is an entry, `24-2.` the last of its transaction."""
    return [
        (text.rstrip(".").encode(), [b"op", b"mark", *([b"end", b"1"] if text.endswith(".") else [])]) for text in ids
    ]


@pytest.mark.parametrize(
    ("ids", "count"),
    [
        ([], 0),
        (["24-1."], 1),
        (["24-1", "24-2."], 2),
        (["24-1", "24-2", "25-1"], 2),
        (["24-1.", "25-1", "25-2"], 1),
        (["24-1.", "25-1", "26-1", "26-2"], 2),
        (["24-1.", "25-1.", "26-1."], 3),
        (["24-1", "24-2"], 0),
    ],
)
def test_a_batch_ends_with_the_last_transaction_that_is_whole(made: Make, ids: list[str], count: int) -> None:
    assert ripe_count(made(entries(*ids)), full=False) == count


def test_a_transaction_larger_than_the_bound_is_applied_in_parts(made: Make) -> None:
    assert ripe_count(made(entries("24-1", "24-2")), full=True) == 2
    assert ripe_count(made(entries("24-1.", "25-1")), full=True) == 1


def test_everything_is_applied_when_forced(made: Make) -> None:
    assert ripe_count(made(entries("24-1.", "25-1")), full=False, force=True) == 2


def test_rows_that_a_query_found_are_applied_as_they_come(made: Make) -> None:
    found = [(f"24-{number}".encode(), [b"op", b"upsert", b"origin", b"snapshot"]) for number in range(3)]
    assert ripe_count(made(found), full=False) == 3
    assert ripe_count(made([*entries("23-1."), *found, *entries("24-3", "24-4")]), full=False) == 4
    assert ripe_count(made([(b"24-1", [b"op", b"origin", b"key", b"{}"])]), full=False) == 0
