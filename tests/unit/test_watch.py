"""How far a sink is, by what it last wrote."""

from __future__ import annotations

from typing import Any

from cdc.watch import held_position
from transforms.position import LSN, START, Position

PUBLISHED = LSN(0x1000)
ENDS = {"customer": Position(LSN(0x900), 1), "order": Position(LSN(0x200), 1)}


def status(applied_lsn: str | None = None, **streams: str) -> dict[str, Any]:
    return {"name": "billing", "applied_lsn": applied_lsn, "streams": streams}


def test_a_sink_that_has_not_begun_holds_nothing_that_is_known() -> None:
    assert held_position(status(), PUBLISHED, ENDS) is None
    assert held_position({"name": "billing"}, PUBLISHED, ENDS) is None


def test_a_sink_at_the_end_of_its_streams_holds_all_that_is_published() -> None:
    ends = {stream: str(end) for stream, end in ENDS.items()}
    assert held_position(status("0/800", **ends), PUBLISHED, ENDS) == PUBLISHED


def test_under_load_it_holds_what_its_hindmost_stream_holds() -> None:
    behind = status(None, customer=f"{0x700}-1", order=str(ENDS["order"]))
    assert held_position(behind, PUBLISHED, ENDS) == LSN(0x700)


def test_what_it_said_of_itself_counts_where_that_is_more() -> None:
    behind = status("0/A00", customer=f"{0x700}-1")  # the stream's next entry came long after
    assert held_position(behind, PUBLISHED, {"customer": Position(LSN(0xB00), 1)}) == LSN(0xA00)


def test_a_stream_that_does_not_exist_yet_is_held_as_a_whole() -> None:
    ends = {**ENDS, "invoice": START}
    assert held_position(status(None, invoice="0-0"), PUBLISHED, ends) == PUBLISHED


def test_a_stream_of_an_earlier_epoch_is_held_only_as_far_as_it_was_applied() -> None:
    ends = {"customer@2": Position(LSN(0x900), 1)}
    assert held_position(status(None, customer=f"{0x700}-1"), PUBLISHED, ends) == LSN(0x700)
