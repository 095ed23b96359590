"""Loops that promise to be heard of again, and what is said of those that are not."""

from __future__ import annotations

import math

from transforms.health import overdue_reason
from transforms.pulse import Pulse


def test_a_loop_is_well_until_the_time_it_named_itself() -> None:
    pulse = Pulse()
    pulse.beat("stream", 10.0)
    assert pulse.overdue(10.0) == {}
    assert pulse.overdue(12.5) == {"stream": 2.5}


def test_a_beat_makes_up_for_a_late_one() -> None:
    pulse = Pulse()
    pulse.beat("stream", 10.0)
    pulse.beat("stream", 20.0)
    assert pulse.overdue(15.0) == {}


def test_one_silent_loop_is_not_hidden_by_another_that_beats() -> None:
    pulse = Pulse()
    pulse.beat("publisher", 10.0)
    pulse.beat("stream", 100.0)
    assert pulse.overdue(50.0) == {"publisher": 40.0}


def test_a_loop_that_ended_or_waits_without_a_bound_is_not_missed() -> None:
    pulse = Pulse()
    pulse.beat("publisher", 10.0)
    pulse.end("publisher")
    pulse.end("never begun")
    pulse.beat("opening", math.inf)
    assert pulse.overdue(1e9) == {}


def test_the_reason_names_the_silent_loops() -> None:
    assert overdue_reason({}) is None
    reason = overdue_reason({"stream": 2.4, "publisher": 40.0})
    assert reason == "the stream has been silent for 2 s too long, the publisher has been silent for 40 s too long"
