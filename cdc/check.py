"""`cdc check`: every precondition of the reader, each with the SQL or command that mends it. Changes nothing."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Literal

from cdc.catalog import map_event
from cdc.config import ALL_COLUMNS, ReaderConfig
from cdc.control import Control
from cdc.opening import application_name
from cdc.source import Source
from cdc.transport import connect
from transforms.errors import StatecastError
from transforms.finding import Finding
from transforms.keys import Keys


def run_checks(config: ReaderConfig) -> list[Finding]:
    """Test everything that can be tested; what stands behind a failed connection is left out."""
    findings: list[Finding] = []
    try:
        source = Source(config.source.address, application_name(config.pipeline.name) + "_check")
    except StatecastError as error:
        findings.append(Finding("error", "source", str(error), error.remedy))
    else:
        try:
            findings += _source(source, config)
        except StatecastError as error:
            findings.append(Finding("error", "source", str(error), error.remedy))
        finally:
            source.close()
    try:
        with connect(config.transport.address) as client:
            findings += _transport(Control(client, Keys(config.pipeline.name)))
    except StatecastError as error:
        findings.append(Finding("error", "transport", str(error), error.remedy))
    return findings


def _source(source: Source, config: ReaderConfig) -> Iterator[Finding]:
    version = source.server_version()
    yield (
        Finding("ok", "source", f"Postgres {version // 10000} answers")
        if version >= 150000
        else Finding("error", "source", f"Postgres {version // 10000} is older than 15", "Upgrade the source database.")
    )
    if source.setting("wal_level") == "logical":
        yield Finding("ok", "wal_level", "logical")
    else:
        yield Finding(
            "error", "wal_level", f"{source.setting('wal_level')}, must be logical",
            "ALTER SYSTEM SET wal_level = logical; then restart the server.",
        )  # fmt: skip
    if source.may_replicate():
        yield Finding("ok", "role", "has REPLICATION")
    else:
        yield Finding(
            "error",
            "role",
            "may not replicate",
            "ALTER ROLE <role> REPLICATION; -- on RDS: GRANT rds_replication TO <role>;",
        )
    name, standbys = application_name(config.pipeline.name), source.setting("synchronous_standby_names")
    if name in standbys or "*" in standbys:
        yield Finding(
            "error", "synchronous_standby_names",
            f"matches {name}: commits of the application would wait for the reader",
            "Name the standbys one by one in synchronous_standby_names.",
        )  # fmt: skip
    yield from _tables(source, config)
    yield from _slot(source, config)


def _tables(source: Source, config: ReaderConfig) -> Iterator[Finding]:
    tables = source.describe(tuple({event.table for event in config.events}))
    publication = source.publication(config.publication)
    for event in config.events:
        try:
            mapping = map_event(event, tables.get(event.table))
        except StatecastError as error:
            yield Finding("error", f"event {event.label}", str(error), error.remedy)
            continue
        what = f"{len(mapping.columns)} columns of {event.table}, key ({', '.join(mapping.key)})"
        yield Finding("ok", f"event {event.label}", what)
        unlisted = [column.name for column in mapping.table.columns if column.name not in mapping.names]
        if unlisted and event.columns != ALL_COLUMNS:
            yield Finding("ok", f"event {event.label}", f"not published: {', '.join(unlisted)}")
        if publication is not None and event.table not in publication.tables:
            yield Finding(
                "warning", f"publication {config.publication}", f"{event.table} is missing; `cdc run` adds it"
            )
    if publication is None:
        yield Finding("warning", f"publication {config.publication}", "does not exist yet; `cdc run` makes it")
    elif not publication.complete:
        yield Finding(
            "error", f"publication {config.publication}", "leaves out some kind of change",
            f"ALTER PUBLICATION {config.publication} SET (publish = 'insert, update, delete, truncate',"
            " publish_via_partition_root = true);",
        )  # fmt: skip


def _slot(source: Source, config: ReaderConfig) -> Iterator[Finding]:
    slot = source.slot(config.source.slot)
    if slot is None:
        yield Finding("warning", f"slot {config.source.slot}", "does not exist yet; `cdc run` makes it")
    elif slot.wal_status == "lost":
        yield Finding("error", f"slot {config.source.slot}", "is lost", "Run `cdc drop` and start again.")
    else:
        reader = f"read by PID {slot.active_pid}" if slot.active_pid else "read by nobody"
        yield Finding(
            "ok", f"slot {config.source.slot}", f"{slot.wal_status}, {reader}, holds {slot.retained_bytes} bytes"
        )
    if source.setting("max_slot_wal_keep_size") == "-1":
        yield Finding(
            "warning", "max_slot_wal_keep_size", "-1: a reader that is down fills the primary's disk",
            "ALTER SYSTEM SET max_slot_wal_keep_size = '50GB'; SELECT pg_reload_conf(); -- less than the free disk",
        )  # fmt: skip


def _transport(control: Control) -> Iterator[Finding]:
    facts = control.server_facts()
    yield Finding("ok", "transport", f"{facts.product} {facts.version} answers")
    if facts.too_old:
        yield Finding(
            "error", "transport", f"{facts.product} {facts.version} is too old", "Redis 7.0 or Valkey 7.2 is needed."
        )
    if facts.eviction.startswith(("allkeys", "volatile")):
        verdict: Literal["error", "warning"] = "error" if facts.eviction.startswith("allkeys") else "warning"
        yield Finding(
            verdict, "maxmemory-policy", f"{facts.eviction}: Redis may remove whole streams when memory is short",
            "CONFIG SET maxmemory-policy noeviction",
        )  # fmt: skip
    if facts.append_only is False:
        yield Finding(
            "warning", "persistence",
            "no append-only file: a restart of Redis loses what it was given since its last dump;"
            " the reader publishes again what the slot still holds, and stops where that is not enough",
            "CONFIG SET appendonly yes",
        )  # fmt: skip
