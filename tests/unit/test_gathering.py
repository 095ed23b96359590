"""When a small batch waits for company."""

from __future__ import annotations

import pytest

from cdc.gathering import LOADED_RATE, LOADED_WAIT_SECONDS, SMALL_ENTRIES, WAIT_SECONDS, Gathering

NOW = 5_000.0
SPAN = 0.01


def after(entries: int) -> Gathering:
    """A batch of so many has just gone, a span behind the one before."""
    gathering = Gathering()
    gathering.submitted(1, NOW - SPAN)
    gathering.submitted(entries, NOW)
    return gathering


IDLE, LOADED = after(1), after(int(LOADED_RATE * SPAN * 1.1))


def test_what_comes_after_a_pause_goes_at_once() -> None:
    assert Gathering().remaining(1, NOW) <= 0
    assert IDLE.remaining(1, NOW + 1.1 * WAIT_SECONDS) <= 0
    assert LOADED.remaining(1, NOW + 1.1 * LOADED_WAIT_SECONDS) <= 0


def test_what_comes_right_behind_a_batch_waits() -> None:
    assert IDLE.remaining(1, NOW) == pytest.approx(WAIT_SECONDS)
    assert IDLE.remaining(SMALL_ENTRIES - 1, NOW + 0.9 * WAIT_SECONDS) > 0


def test_it_waits_longer_under_load_and_only_for_as_long_as_that_lasts() -> None:
    gathering = after(int(LOADED_RATE * SPAN * 1.1))
    assert gathering.remaining(1, NOW) == pytest.approx(LOADED_WAIT_SECONDS)
    gathering.submitted(int(LOADED_RATE * LOADED_WAIT_SECONDS * 0.9), NOW + LOADED_WAIT_SECONDS)
    assert gathering.remaining(1, NOW + LOADED_WAIT_SECONDS) == pytest.approx(WAIT_SECONDS)


def test_one_large_batch_after_a_pause_is_no_load() -> None:
    gathering = Gathering()
    gathering.submitted(100_000, NOW)
    assert gathering.remaining(1, NOW) == pytest.approx(WAIT_SECONDS)


def test_a_batch_that_is_worth_its_costs_never_waits() -> None:
    assert LOADED.remaining(SMALL_ENTRIES, NOW) <= 0
