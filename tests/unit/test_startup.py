"""What a start may do: a hole is never skipped in silence, and a person is told what to do about it."""

from __future__ import annotations

from dataclasses import replace

import pytest

from cdc.errors import SourceError
from cdc.startup import (
    MetaMissing,
    SlotAhead,
    SlotForeign,
    SlotLost,
    SlotMissing,
    SlotReplaced,
    SourceState,
    Start,
    StoredState,
    StreamsWentBack,
    SystemChanged,
    decide,
)
from transforms.position import LSN, START, Position

SOURCE = SourceState(
    system_identifier="7301",
    timeline=1,
    database="shop",
    publication_oid=16400,
    insert_position=LSN(1000),
    slot_plugin="pgoutput",
    slot_database="shop",
    slot_confirmed=LSN(500),
    slot_wal_status="reserved",
)
LAST = Position(LSN(480), 1_000_000)
SHORTER = Position(LSN(470), 1_000_000)
STORED = StoredState(
    system_identifier="7301",
    timeline=1,
    publication_oid=16400,
    published=LSN(500),
    slot_was_missing=False,
    stream_ends={"customer": (LAST, LAST), "order": (START, START)},
)
EMPTY = StoredState(None, 0, 0, LSN(0), False, {"customer": (START, START)})
NO_SLOT = replace(SOURCE, slot_plugin=None, slot_database="", slot_confirmed=LSN(0), slot_wal_status="")


@pytest.mark.parametrize("source", [SOURCE, NO_SLOT, replace(NO_SLOT, publication_oid=None)])
def test_with_an_empty_redis_everything_is_made_and_snapshotted(source: SourceState) -> None:
    assert decide(source, EMPTY) is Start.FRESH


@pytest.mark.parametrize(
    ("source", "stored"),
    [
        (SOURCE, STORED),
        (replace(SOURCE, slot_confirmed=LSN(100)), STORED),
        (replace(SOURCE, insert_position=LSN(500)), STORED),
        (replace(SOURCE, slot_wal_status="unreserved"), STORED),
        (SOURCE, replace(STORED, stream_ends={"customer": (Position(LSN(490), 1_000_000), LAST)})),
        (SOURCE, replace(STORED, stream_ends={})),
        (replace(SOURCE, slot_confirmed=LSN(470)), replace(STORED, stream_ends={"customer": (SHORTER, LAST)})),
    ],
    ids=[
        "alike",
        "slot behind",
        "idle source",
        "slot in danger",
        "stream ahead of what is stored",
        "no streams",
        "stream lost what the slot still has",
    ],
)
def test_where_slot_and_redis_agree_streaming_goes_on(source: SourceState, stored: StoredState) -> None:
    assert decide(source, stored) is Start.RESUME


@pytest.mark.parametrize(
    ("source", "stored", "error", "words"),
    [
        (replace(SOURCE, slot_plugin="wal2json"), STORED, SlotForeign, "wal2json"),
        (replace(SOURCE, slot_plugin="wal2json"), EMPTY, SlotForeign, "wal2json"),
        (replace(SOURCE, slot_database="other"), STORED, SlotForeign, "'other'"),
        (replace(SOURCE, slot_wal_status="lost"), STORED, SlotLost, "removed WAL"),
        (replace(SOURCE, slot_wal_status="lost"), EMPTY, SlotLost, "removed WAL"),
        (replace(SOURCE, slot_plugin="", slot_database=""), STORED, SlotForeign, "a physical one"),
        (replace(SOURCE, slot_two_phase=True), STORED, SlotForeign, "two_phase"),
        (
            replace(SOURCE, slot_wal_status="lost", slot_lost_because="nobody read it"),
            STORED,
            SlotLost,
            "the slot is lost: nobody read it",
        ),
        (NO_SLOT, STORED, SlotMissing, "does not exist any more"),
        (SOURCE, replace(STORED, slot_was_missing=True), SlotReplaced, "is another one"),
        (replace(SOURCE, slot_confirmed=LSN(501)), STORED, SlotAhead, "0/1F5, Redis holds up to 0/1F4"),
        (replace(SOURCE, system_identifier="7302"), STORED, SystemChanged, "another cluster"),
        (replace(NO_SLOT, system_identifier="7302"), STORED, SystemChanged, "another cluster"),
        (replace(SOURCE, timeline=2, insert_position=LSN(499)), STORED, SystemChanged, "another timeline"),
        (replace(SOURCE, insert_position=LSN(499)), STORED, SystemChanged, "before what has been published"),
        (replace(SOURCE, publication_oid=16401), STORED, SystemChanged, "publication was dropped"),
        (replace(SOURCE, publication_oid=None), STORED, SystemChanged, "publication was dropped"),
        (SOURCE, replace(EMPTY, stream_ends={"customer": (LAST, START)}), MetaMissing, "customer"),
        (SOURCE, replace(STORED, stream_ends={"customer": (START, LAST)}), StreamsWentBack, "ends at 0-0"),
        (
            replace(SOURCE, slot_confirmed=LSN(471)),
            replace(STORED, stream_ends={"customer": (SHORTER, LAST)}),
            StreamsWentBack,
            "ends at 470-1000000, but 480-1000000 was published to it, and the slot has been confirmed up to 0/1D7",
        ),
    ],
)
def test_a_person_decides_where_changes_may_be_missing(
    source: SourceState, stored: StoredState, error: type[SourceError], words: str
) -> None:
    with pytest.raises(error, match=words) as refusal:
        decide(source, stored)
    assert type(refusal.value) is error
    assert not refusal.value.retryable


def test_another_timeline_that_forked_behind_what_is_published_is_the_same_history() -> None:
    assert decide(replace(SOURCE, timeline=2, fork=LSN(500)), STORED) is Start.RESUME


@pytest.mark.parametrize("fork", [None, LSN(499)])
def test_another_timeline_is_refused_however_far_it_has_grown(fork: LSN | None) -> None:
    with pytest.raises(SystemChanged, match="another timeline"):
        decide(replace(SOURCE, timeline=2, fork=fork), STORED)
