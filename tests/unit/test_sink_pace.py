"""A turn takes as much as the target applies in a fifth of a second."""

from __future__ import annotations

from sinks.pace import LEAST_ENTRIES, MOST_ENTRIES, Pace


def test_a_stream_that_is_not_known_to_be_behind_has_a_small_turn() -> None:
    assert Pace().entries("customer", behind=False) == LEAST_ENTRIES


def test_turns_shrink_where_the_target_is_slow_and_grow_again() -> None:
    pace = Pace()
    assert pace.entries("customer", behind=True) == MOST_ENTRIES
    pace.took("customer", 5_000, 0.5)
    assert pace.entries("customer", behind=True) == 2_000
    pace.took("customer", 2_000, 0.1)
    assert pace.entries("customer", behind=True) == 4_000
    assert pace.entries("order", behind=True) == MOST_ENTRIES


def test_turns_stay_within_their_bounds() -> None:
    pace = Pace()
    pace.took("customer", 5_000, 60.0)
    assert pace.entries("customer", behind=True) == LEAST_ENTRIES
    pace.took("customer", 1_000, 0.0)
    assert pace.entries("customer", behind=True) == MOST_ENTRIES


def test_small_turns_tell_nothing() -> None:
    pace = Pace()
    pace.took("customer", 3, 0.5)
    assert pace.entries("customer", behind=True) == MOST_ENTRIES
