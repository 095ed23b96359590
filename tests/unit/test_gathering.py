"""When a small batch waits for company."""

from __future__ import annotations

import pytest

from cdc.gathering import LOADED_ENTRIES, LOADED_WAIT_SECONDS, SMALL_ENTRIES, WAIT_SECONDS, Gathering

NOW = 5_000.0
EARLIER, LATER = 0.9, 1.1


def after(entries: int) -> Gathering:
    gathering = Gathering()
    gathering.submitted(entries, NOW)
    return gathering


def test_what_comes_after_a_pause_goes_at_once() -> None:
    assert Gathering().remaining(1, NOW) <= 0
    assert after(1).remaining(1, NOW + LATER * WAIT_SECONDS) <= 0
    assert after(LOADED_ENTRIES).remaining(1, NOW + LATER * LOADED_WAIT_SECONDS) <= 0


def test_what_comes_right_behind_a_batch_waits() -> None:
    assert after(1).remaining(1, NOW) == pytest.approx(WAIT_SECONDS)
    assert after(1).remaining(SMALL_ENTRIES - 1, NOW + EARLIER * WAIT_SECONDS) > 0


def test_it_waits_longer_behind_a_batch_that_shows_load() -> None:
    assert after(LOADED_ENTRIES - 1).remaining(1, NOW) == pytest.approx(WAIT_SECONDS)
    assert after(LOADED_ENTRIES).remaining(1, NOW) == pytest.approx(LOADED_WAIT_SECONDS)


def test_a_batch_that_is_worth_its_costs_never_waits() -> None:
    assert after(LOADED_ENTRIES).remaining(SMALL_ENTRIES, NOW) <= 0
