"""A turn takes as much as the target applies in a fifth of a second; a sink looks often for what just starts."""

from __future__ import annotations

from itertools import pairwise

from sinks.pace import FIRST_ENTRIES, LEAST_ENTRIES, MOST_ENTRIES, Pace, pause_before_look


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


def test_a_reader_that_starts_at_the_same_time_is_seen_soon_and_one_that_is_long_awaited_costs_little() -> None:
    waited, looks = 0.0, []
    while waited < 100.0:
        looks.append(waited)
        waited += pause_before_look(waited)
    assert all(later - sooner <= max(0.05, sooner / 4) + 1e-9 for sooner, later in pairwise(looks))
    assert len(looks) < 100.0 / 0.5 + 20
    assert pause_before_look(float("inf")) == 0.5
