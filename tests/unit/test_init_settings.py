"""What `cdc init` says of a server's settings, and how they are changed where it runs."""

from __future__ import annotations

from typing import Any

import pytest

from cdc.init.amounts import rate_text, rows_text, size_text
from cdc.init.providers import AMAZON, AZURE, GOOGLE, MANAGED, NEON, SELF_HOSTED, SUPABASE, Provider, provider_of
from cdc.init.settings import settings_to_change
from tests.unit.init_builders import server


def told(**facts: Any) -> list[tuple[str, str, str | None]]:
    return [(finding.verdict, finding.thing, finding.remedy) for finding in settings_to_change(server(**facts))]


def test_a_server_that_is_ready_needs_nothing() -> None:
    assert told() == []


def test_a_server_of_ones_own_is_changed_by_sql_and_the_other_ways_are_listed() -> None:
    ((verdict, thing, remedy),) = told(wal_level="replica")
    assert (verdict, thing) == ("error", "wal_level")
    assert remedy is not None
    first, *elsewhere = remedy.splitlines()
    assert first == "ALTER SYSTEM SET wal_level = 'logical'; -- then restart the server"
    assert len(elsewhere) == len(MANAGED)
    assert all(line.startswith("-- ") for line in elsewhere)


@pytest.mark.parametrize(
    ("facts", "expected"),
    [
        ({"max_replication_slots": 4, "used_slots": 4}, ("max_replication_slots", "max_replication_slots = '10'")),
        ({"max_wal_senders": 10, "used_senders": 10}, ("max_wal_senders", "max_wal_senders = '15'")),
        ({"max_slot_wal_keep_size": "-1"}, ("max_slot_wal_keep_size", "max_slot_wal_keep_size = '50GB'")),
        ({"standby": True}, ("server", "Point SOURCE_DSN at the primary.")),
    ],
)
def test_each_setting_comes_with_what_changes_it(facts: dict[str, Any], expected: tuple[str, str]) -> None:
    ((_, thing, remedy),) = told(**facts)
    assert thing == expected[0]
    assert expected[1] in (remedy or "")


@pytest.mark.parametrize(
    ("traces", "provider", "wal_level"),
    [
        ({"rds.logical_replication", "rds_superuser"}, AMAZON, "rds.logical_replication = 1"),
        ({"cloudsql.logical_decoding"}, GOOGLE, "cloudsql.logical_decoding = on"),
        ({"azure.extensions"}, AZURE, "server parameter wal_level = logical"),
        ({"supabase_admin"}, SUPABASE, "Supabase"),
        ({"neon.timeline_id"}, NEON, "logical replication in the project's settings"),
        (set(), SELF_HOSTED, "ALTER SYSTEM"),
    ],
)
def test_a_managed_server_is_recognised_and_its_own_way_is_told(
    traces: set[str], provider: Provider, wal_level: str
) -> None:
    assert provider_of(traces) is provider
    remedies = [
        remedy for _, thing, remedy in told(wal_level="replica", traces=frozenset(traces)) if thing == "wal_level"
    ]
    assert wal_level in (remedies[0] or "")


def test_neon_is_not_told_to_change_what_it_manages_itself() -> None:
    things = [thing for _, thing, _ in told(max_slot_wal_keep_size="-1", traces=frozenset({"neon_superuser"}))]
    assert things == ["Neon"]


@pytest.mark.parametrize(
    ("size", "expected"),
    [
        (0, "0 bytes"),
        (1024, "1.0 kB"),
        (10_240, "10 kB"),
        (1_500_000, "1.4 MB"),
        (5 << 40, "5.0 TB"),
        (9 << 50, "9,216 TB"),
    ],
)
def test_sizes_read_well(size: int, expected: str) -> None:
    assert size_text(size) == expected


@pytest.mark.parametrize(
    ("writes", "days", "expected"),
    [
        (0, 10.0, "no writes seen"),
        (1, None, "1 write counted"),
        (1234, None, "1,234 writes counted"),
        (12_000, 10.0, "about 1,200 writes a day"),
        (3, 10.0, "less than one write a day"),
        (50, 0.1, "50 writes in 2 h"),
        (50, 0.001, "50 writes in 1 h"),
    ],
)
def test_rates_read_well(writes: int, days: float | None, expected: str) -> None:
    assert rate_text(writes, days) == expected


def test_rows_are_an_estimate() -> None:
    assert [rows_text(1), rows_text(12_000)] == ["about 1 row", "about 12,000 rows"]
