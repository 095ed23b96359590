"""What `cdc check` says of a failover: whether the slot is there on the standby that is promoted, and not too far.

A slot that is made for it is copied to each standby that asks (`sync_replication_slots`). A copy serves only if the
standby holds all that the reader has published, so the primary must let the standby have it first: that is what
`synchronized_standby_slots` does, the one setting of these that the primary knows.
Source: https://www.postgresql.org/docs/current/logical-replication-failover.html
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from cdc.config import ReaderConfig
from cdc.server.facts import ServerFacts
from cdc.server.providers import SELF_HOSTED
from cdc.source.connection import Source
from cdc.source.slot import FAILOVER_VERSION, Slot
from transforms.finding import Finding

_STANDBYS: Final = """
    SELECT ARRAY(SELECT slot_name::text FROM pg_replication_slots
                 WHERE slot_type = 'physical' AND NOT temporary ORDER BY slot_name),
           coalesce(current_setting('synchronized_standby_slots', true), '')
"""
_ON_STANDBYS: Final = (
    "-- on each standby: sync_replication_slots = on, hot_standby_feedback = on, primary_slot_name,"
    " and a dbname in primary_conninfo"
)


def failover_findings(source: Source, config: ReaderConfig, slot: Slot | None, facts: ServerFacts) -> Iterator[Finding]:
    """Nothing where no standby has a slot of its own at this server. Raises SourceError."""
    [(standbys, awaited)] = source.query(_STANDBYS)
    if not standbys or facts.provider is not SELF_HOSTED:  # elsewhere it is the provider's, mostly with the disk
        return
    if facts.version < FAILOVER_VERSION:
        yield Finding(
            "warning", "failover",
            f"Postgres {facts.version // 10_000} keeps no copy of slot {config.source.slot} on a standby: after a"
            " failover the reader stops",
            "cdc snapshot --all # then cdc run, when that has happened; from Postgres 17 on it need not",
        )  # fmt: skip
        return
    if slot is not None and slot.failover is False:
        yield Finding(
            "warning", "failover", f"slot {config.source.slot} was made without: no standby keeps a copy of it",
            "-- with the reader stopped, in psql with replication=database in its connection string\n"
            f"ALTER_REPLICATION_SLOT {config.source.slot} (FAILOVER true);",
        )  # fmt: skip
    if not awaited:
        names = ", ".join(standbys)
        yield Finding(
            "warning", "synchronized_standby_slots",
            "is empty: a standby may lack what is published already, and once promoted the reader stops",
            f"ALTER SYSTEM SET synchronized_standby_slots = '{names}';\nSELECT pg_reload_conf();"
            f" -- changes then wait for these standbys\n{_ON_STANDBYS}",
        )  # fmt: skip
    else:
        yield Finding("ok", "synchronized_standby_slots", f"{awaited}: nothing is published before they have it")
