"""Runs that have not begun: one stands for all that differ in nothing but who asked and when."""

from __future__ import annotations

from dataclasses import replace

from hypothesis import given
from hypothesis import strategies as st

from cdc.snapshot.run import Run, coalesced

CUSTOMER, ORDER = "customer.v1", "order.v1"


def asked(number: int, event: str = CUSTOMER, to: str | None = None, state: str = "pending") -> Run:
    return replace(Run.requested(f"{number}-0", event, to), state=state, created_at=float(number))


def test_runs_that_wait_for_the_same_are_one_in_the_oldest_ones_place_which_serves_them_all() -> None:
    requests = [asked(9), asked(10), asked(11)]
    [run] = coalesced(requests, set())
    assert (run.id, run.created_at) == (f"11-0:{CUSTOMER}", 9.0)
    assert all(run.serves(request) for request in requests)
    assert not run.serves(asked(12))


def test_a_run_that_has_begun_stands_for_nobody_who_asked_later() -> None:
    stored = [asked(1, state="running"), asked(2), asked(3), asked(4), asked(5)]
    running, begun, waiting = coalesced(stored, begun={stored[1].id})
    assert [run.id for run in (running, begun)] == [run.id for run in stored[:2]]
    assert not begun.serves(stored[2])
    assert all(waiting.serves(run) for run in stored[2:])


def test_runs_of_other_events_or_for_other_sinks_stay() -> None:
    stored = [asked(1), asked(2, ORDER), asked(3, to="billing"), asked(4, to="search"), asked(5, state="done")]
    stored += [replace(asked(number), where=where) for number, where in ((6, "id < 5"), (7, "id < 6"))]
    assert coalesced(stored, set()) == stored


def test_who_asks_while_an_event_is_to_be_published_for_the_first_time_gets_that_run() -> None:
    [run] = coalesced([Run.new(CUSTOMER, first=True), asked(1), Run.new(CUSTOMER)], set())
    assert run.first
    assert run.serves(asked(1))


def test_a_run_that_nobody_asked_for_serves_no_request() -> None:
    assert not Run.new(CUSTOMER).serves(asked(1))


runs = st.builds(
    asked,
    st.integers(1, 8),
    st.sampled_from([CUSTOMER, ORDER]),
    st.sampled_from([None, "billing"]),
    st.sampled_from(["pending", "pending", "running", "done"]),
)


@given(st.lists(runs, unique_by=lambda run: run.id), st.sets(st.integers(0, 9), max_size=3))
def test_everybody_who_asked_is_served_by_a_run_that_had_not_begun_or_is_the_one_made_for_him(
    stored: list[Run], begun_at: set[int]
) -> None:
    begun = {run.id for number, run in enumerate(stored) if number in begun_at}
    kept = coalesced(stored, begun)
    before = {run.id for run in stored if run.state != "pending"} | begun
    for run in stored:
        assert run in kept or any(other.serves(run) and other.id not in before for other in kept)
    assert [run for run in kept if run.to] == [run for run in stored if run.to]
    waiting = [run.event for run in kept if run.id not in before and not run.to]
    assert len(waiting) == len(set(waiting))
