"""Ids that no reader gives, and marks of runs that no reader knows."""

from __future__ import annotations

import pytest

from sinks.entries import Entries
from sinks.known_runs import KnownRun, foreign_marks
from sinks.plausible import AHEAD_BYTES, refuse_impossible
from transforms import wire
from transforms.errors import MalformedEntry
from transforms.event import Mark
from transforms.position import LSN, Position

PUBLISHED = LSN(5_000)


def entries(*ids: str) -> Entries:
    return Entries([(entry_id.encode(), [b"op", b"delete"]) for entry_id in ids])


@pytest.mark.parametrize(
    "ids",
    [
        [],
        ["1-1000000"],
        ["100-1000000", "100-2000001", "6000-1999999", "7000-999999999999000000"],
        [f"{PUBLISHED + AHEAD_BYTES}-1000000"],
    ],
)
def test_what_a_reader_may_have_written_passes(ids: list[str]) -> None:
    refuse_impossible(entries(*ids), PUBLISHED)


@pytest.mark.parametrize(
    "entry_id",
    [
        "0-1000000",
        "01-1000000",
        "100-0",
        "100-999999",
        "100-01000000",
        "100-1000000000000000000",
        "100-18446744073709551615",
        f"{PUBLISHED + AHEAD_BYTES + 1}-1000000",
        "18446744073709551615-1000000",
    ],
)
def test_an_id_that_no_reader_gives_is_named(entry_id: str) -> None:
    with pytest.raises(MalformedEntry, match=f"entry {entry_id} "):
        refuse_impossible(entries(*({"50-1000000"} - {entry_id}), entry_id), PUBLISHED)


def mark(
    name: str = wire.RUN_BEGIN, place: str = "100-1000000", event: str = "customer.v1", to: str | None = None
) -> Mark:
    return Mark(name, {"run": "r1", "event": event}, Position.parse(place), to=to)


def known(
    begun: str | None = None, ended: str | None = None, event: str = "customer.v1", to: str | None = None
) -> KnownRun:
    places = (None if place is None else Position.parse(place) for place in (begun, ended))
    return KnownRun(event, to, *places)


@pytest.mark.parametrize(
    ("one", "run"),
    [
        (mark(), known()),
        (mark(), known("100-1000000")),
        (mark(), known("200-1000000")),  # of a reader that was killed before it had stored where the first one is
        (mark(wire.RUN_END), known("50-1000000", "100-1000000")),
        (mark(wire.RUN_END), known("50-1000000")),
        (mark(wire.RUN_END), None),  # forgotten since: the replica knows which run it is in
        (mark(to="billing"), known(to="billing")),
    ],
)
def test_a_mark_that_may_be_the_readers_is_believed(one: Mark, run: KnownRun | None) -> None:
    assert foreign_marks([one], {} if run is None else {"r1": run}) == []


@pytest.mark.parametrize(
    ("one", "run"),
    [
        (mark(), None),
        (mark(place="200-1000000"), known("100-1000000")),
        (mark(wire.RUN_END, "200-1000000"), known("50-1000000", "100-1000000")),
        (mark(event="order.v1"), known()),
        (mark(to="billing"), known()),
        (mark(), known(to="billing")),
    ],
)
def test_a_mark_that_is_not_the_readers_is_told(one: Mark, run: KnownRun | None) -> None:
    assert foreign_marks([one], {} if run is None else {"r1": run}) == [one]


def test_a_stored_run_is_read_with_and_without_the_places_of_its_marks() -> None:
    assert KnownRun.parse(b'{"event":"customer.v1","to":"billing","state":"running"}') == known(to="billing")
    whole = b'{"event":"customer.v1","to":null,"begun":"100-1000000","ended":"200-1000000","more":1}'
    assert KnownRun.parse(whole) == known("100-1000000", "200-1000000")
