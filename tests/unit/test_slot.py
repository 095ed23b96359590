"""A slot as the versions of Postgres tell of it."""

from __future__ import annotations

from typing import Any, cast

import pytest

from cdc.source.connection import Source
from cdc.source.slot import Slot, find_slot


def found(status: str, failover: bool | None, reason: str | None, conflicting: bool | None) -> Slot:
    """What is made of the last columns of its row."""
    row = ("pgoutput", "shop", "0/20", "0/10", status, None, 16, None, False, failover, reason, conflicting)

    class Server:
        def query(self, *_: Any) -> list[tuple[Any, ...]]:
            return [row]

    slot = find_slot(cast(Source, Server()), "cdc_shop")
    assert slot is not None
    return slot


@pytest.mark.parametrize(
    ("status", "reason", "conflicting", "expected"),
    [
        ("reserved", None, None, None),
        ("unreserved", None, False, None),
        ("lost", None, None, "max_slot_wal_keep_size"),  # before 17
        ("lost", "wal_removed", False, "max_slot_wal_keep_size"),
        ("lost", "rows_removed", True, "hot_standby_feedback"),
        ("lost", "wal_level_insufficient", True, "wal_level was lowered"),
        ("lost", "idle_timeout", False, "idle_replication_slot_timeout"),
        ("lost", None, True, "in conflict with recovery"),  # 16
        ("lost", "of_a_later_version", False, "of_a_later_version"),
    ],
)
def test_why_it_is_lost_names_what_made_it_so(
    status: str, reason: str | None, conflicting: bool | None, expected: str | None
) -> None:
    because = found(status, False, reason, conflicting).lost_because
    assert because == expected or (because and expected and expected in because)


@pytest.mark.parametrize("failover", [None, False, True])
def test_whether_standbys_keep_a_copy_is_not_known_to_every_version(failover: bool | None) -> None:
    assert found("reserved", failover, None, None).failover is failover
