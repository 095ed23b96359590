"""A turn takes as much as the target applies in a fifth of a second."""

from __future__ import annotations

from sinks.pace import FIRST_ENTRIES, LEAST_ENTRIES, MOST_ENTRIES, Pace


def test_a_stream_whose_turn_comes_before_those_that_are_behind_has_a_small_one() -> None:
    assert Pace().entries("customer", before_others=True) == LEAST_ENTRIES


def test_turns_shrink_where_the_target_is_slow_and_grow_again() -> None:
    pace = Pace()
    assert pace.entries("customer", before_others=False) == FIRST_ENTRIES
    pace.took("customer", 5_000, 0.5)
    assert pace.entries("customer", before_others=False) == 2_000
    pace.took("customer", 2_000, 0.1)
    assert pace.entries("customer", before_others=False) == 4_000
    assert pace.entries("order", before_others=False) == FIRST_ENTRIES


def test_turns_stay_within_their_bounds() -> None:
    pace = Pace()
    pace.took("customer", 5_000, 60.0)
    assert pace.entries("customer", before_others=False) == LEAST_ENTRIES
    pace.took("customer", 1_000, 0.0)
    assert pace.entries("customer", before_others=False) == MOST_ENTRIES


def test_small_turns_tell_nothing() -> None:
    pace = Pace()
    pace.took("customer", 3, 0.5)
    assert pace.entries("customer", before_others=False) == FIRST_ENTRIES
