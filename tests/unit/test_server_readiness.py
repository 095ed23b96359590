"""What `cdc init`, `cdc check` and the start of `cdc run` judge of a server, and what mends it where it runs."""

from __future__ import annotations

from typing import Any, cast

import pytest

from cdc.server.facts import ServerTooOld, describe_server
from cdc.server.providers import AMAZON, AZURE, GOOGLE, NEON, SELF_HOSTED, SUPABASE, Provider, provider_of
from cdc.server.readiness import role_finding, room_findings, server_findings
from cdc.source.connection import Source
from cdc.source.slot import Slot
from tests.unit.init_builders import server
from transforms.finding import Finding
from transforms.position import LSN


def judged(slot: Slot | None = None, **facts: Any) -> list[Finding]:
    """All that is not as it should be."""
    found = server(**facts)
    every = (*server_findings(found, "statecast_shop"), *room_findings(found, slot), role_finding(found))
    return [finding for finding in every if finding.verdict != "ok"]


def verdicts(**facts: Any) -> dict[str, str]:
    return {finding.thing: finding.verdict for finding in judged(**facts)}


def remedy(**facts: Any) -> str:
    """Of the one thing that is wrong."""
    (finding,) = judged(**facts)
    assert finding.remedy is not None
    return finding.remedy


def a_slot(active_pid: int | None) -> Slot:
    return Slot("pgoutput", "shop", LSN(1), LSN(1), "reserved", active_pid, 0, None)


def test_a_server_that_is_ready_needs_nothing() -> None:
    assert judged() == []


@pytest.mark.parametrize(
    "names", ["*", "FIRST 1 (*)", "statecast_shop", "ANY 1 (a, statecast_shop)", '"Statecast_Shop"', "a,STATECAST_SHOP"]
)
def test_a_reader_that_would_be_a_synchronous_standby_is_an_error(names: str) -> None:
    assert verdicts(synchronous_standby_names=names) == {"synchronous_standby_names": "error"}


@pytest.mark.parametrize("names", ["", "statecast_shop_eu", "my_statecast_shop", "FIRST 2 (a)", '"statecast_shop 2"'])
def test_standbys_of_other_names_are_of_no_concern(names: str) -> None:
    assert judged(synchronous_standby_names=names) == []


def test_what_stands_between_is_told_and_not_refused_since_some_pass_replication_through() -> None:
    assert verdicts(pooled=True) == {"pooler": "warning"}


def test_a_standby_is_no_place_for_a_reader() -> None:
    assert verdicts(standby=True) == {"server": "error"}


def test_a_slot_that_is_there_needs_no_free_one_and_its_reader_no_other_walsender() -> None:
    full: dict[str, Any] = {"used_slots": 10, "used_senders": 10}
    assert verdicts(**full) == {"max_replication_slots": "error", "max_wal_senders": "error"}
    assert [finding.thing for finding in judged(a_slot(None), **full)] == ["max_wal_senders"]
    assert judged(a_slot(77), **full) == []


# Each remedy is the one of the place where the server runs


@pytest.mark.parametrize(
    ("traces", "provider"),
    [
        ({"rds.logical_replication", "rds_superuser"}, AMAZON),
        ({"cloudsql.logical_decoding"}, GOOGLE),
        ({"azure.extensions"}, AZURE),
        ({"supabase_admin"}, SUPABASE),
        ({"neon.timeline_id"}, NEON),
        (set(), SELF_HOSTED),
    ],
)
def test_a_managed_server_is_recognised(traces: set[str], provider: Provider) -> None:
    assert provider_of(traces) is provider


@pytest.mark.parametrize(
    ("provider", "wal_level", "slots", "role"),
    [
        (
            SELF_HOSTED,
            "ALTER SYSTEM SET wal_level = 'logical'; -- then restart the server",
            "ALTER SYSTEM SET max_replication_slots = '14'; -- then restart the server",
            'ALTER ROLE "Reader 1" REPLICATION;',
        ),
        (
            AMAZON,
            "Set rds.logical_replication = 1 in the parameter group (of the cluster, with Aurora), then reboot.",
            "Set max_replication_slots = 14 in the parameter group, then reboot.",
            'GRANT rds_replication TO "Reader 1";',
        ),
        (
            GOOGLE,
            "Set the flag cloudsql.logical_decoding = on; the instance restarts.",
            "Set the flag max_replication_slots = 14; the instance restarts.",
            'ALTER ROLE "Reader 1" REPLICATION;',
        ),
        (
            AZURE,
            "Set the server parameter wal_level = logical, then restart the server.",
            "Set the server parameter max_replication_slots = 14, then restart the server.",
            'ALTER ROLE "Reader 1" REPLICATION; -- run by one who has REPLICATION: ALTER ROLE administrator'
            " REPLICATION;",
        ),
        (
            SUPABASE,
            "wal_level is logical on Supabase by default: ask its support why it is not here.",
            "supabase --experimental --project-ref REF postgres-config update --config max_replication_slots=14",
            'ALTER ROLE "Reader 1" REPLICATION;',
        ),
        (
            NEON,
            "Enable logical replication in the project's settings.",
            "Drop what nobody uses: Neon manages max_replication_slots itself.",
            'ALTER ROLE "Reader 1" REPLICATION;',
        ),
    ],
    ids=lambda value: value.name if isinstance(value, Provider) else "",
)
def test_each_provider_has_its_own_way(provider: Provider, wal_level: str, slots: str, role: str) -> None:
    assert remedy(provider=provider, wal_level="replica") == wal_level
    assert remedy(provider=provider, max_replication_slots=4, used_slots=4) == slots
    assert remedy(provider=provider, may_replicate=False, role="Reader 1") == role


@pytest.mark.parametrize(
    ("facts", "expected"),
    [
        (
            {},
            "ALTER SYSTEM SET max_slot_wal_keep_size = '10240MB';\nSELECT pg_reload_conf();\n"
            "-- 10 GB: a guess, since WAL is counted for less than an hour; keep it below what the disk has free",
        ),
        (
            {"provider": AMAZON, "wal_bytes_per_second": 1024.0 * 1024},
            "Set max_slot_wal_keep_size = 86400 in the parameter group.\n-- 84 GB: a day's WAL at the average of"
            " 1.0 MB/s, and 1 GB at least; keep it below what the disk has free",
        ),
        (
            {"provider": SUPABASE, "wal_bytes_per_second": 10.0},
            "supabase --experimental --project-ref REF postgres-config update --config max_slot_wal_keep_size=1024MB\n"
            "-- 1.0 GB: a day's WAL at the average of 10 B/s, and 1 GB at least; keep it below what the disk has free",
        ),
        (
            {"free_bytes": 8 << 30},
            "ALTER SYSTEM SET max_slot_wal_keep_size = '4096MB';\nSELECT pg_reload_conf();\n"
            "-- 4.0 GB: a guess, since WAL is counted for less than an hour; not more than half of the 8.0 GB that are"
            " free",
        ),
    ],
    ids=["nothing known", "a day's WAL", "hardly any WAL", "a small disk"],
)
def test_how_much_a_slot_may_keep_follows_from_the_days_wal_and_the_disk(facts: dict[str, Any], expected: str) -> None:
    assert remedy(max_slot_wal_keep_size="-1", **facts) == expected


def test_a_full_disk_is_not_answered_with_a_slot_that_may_keep_nothing() -> None:
    assert "'1MB'" in remedy(max_slot_wal_keep_size="-1", free_bytes=0)


def test_neon_is_not_told_to_change_what_it_manages_itself() -> None:
    assert judged(max_slot_wal_keep_size="-1", provider=NEON) == []


def test_what_is_special_about_a_provider_is_told_and_no_fault() -> None:
    told = {finding.thing: finding for finding in server_findings(server(provider=NEON), "statecast_shop")}
    assert told["Neon"].verdict == "ok"
    assert "40 hours" in told["Neon"].what


def test_a_server_that_is_too_old_is_refused_before_it_is_asked_what_it_does_not_know() -> None:
    class Old:
        @staticmethod
        def server_version() -> int:
            return 140_012

    with pytest.raises(ServerTooOld, match="Postgres 14 is older than 15"):
        describe_server(cast(Source, Old()))
