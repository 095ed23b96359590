"""What `cdc check` says of the source: server, role, tables, publication, slot."""

from __future__ import annotations

import re
import shutil
from collections.abc import Iterator, Sequence
from pathlib import Path

from cdc.catalog import EventMapping, map_event
from cdc.config import ALL_COLUMNS, ReaderConfig
from cdc.facts import SourceFacts, bytes_out_of_line, source_facts, unreadable
from cdc.source.connection import Source
from cdc.source.publication import find_publication
from cdc.source.slot import find_slot
from cdc.source.tables import describe_tables
from cdc.wording import counted, size
from transforms.errors import StatecastError
from transforms.finding import Finding
from transforms.names import TableName, quote_identifier

_OLDEST = 150_000
_DAY_SECONDS = 86_400
_LEAST_KEEP_BYTES = 1 << 30
_USUAL_KEEP_BYTES = 10 << 30


def source_findings(source: Source, config: ReaderConfig) -> Iterator[Finding]:
    """All that can be said. Raises SourceError when the connection breaks."""
    facts = source_facts(source)
    yield from _reached(source, facts)
    yield from server_findings(source, facts, config)
    mappings: list[EventMapping] = []
    yield from _events(source, config, mappings)
    yield from _grants(source, mappings, facts.role)
    yield from _publication(source, config, mappings, facts)
    yield from _slot(source, config, facts)


def _reached(source: Source, facts: SourceFacts) -> Iterator[Finding]:
    way = "over a Unix socket" if facts.by_socket else facts.tls or "not encrypted"
    yield Finding("ok", "source", f"Postgres {source.server_version() // 10000} answers, {way}")
    if facts.in_recovery:
        what = "is a standby, where no marks can be written"
        yield Finding("error", "server", what, "Name the primary in source.dsn.")


def server_findings(source: Source, facts: SourceFacts, config: ReaderConfig) -> Iterator[Finding]:
    """What must be right before a reader may start."""
    version = source.server_version()
    if version < _OLDEST:
        what = f"Postgres {version // 10000} is older than 15"
        yield Finding("error", "source", what, "Upgrade the source database.")
    if facts.backend_pid != source.backend_pid:
        yield Finding(
            "warning", "pooler", "a pooler or proxy stands between, which must pass replication connections through",
            "If `cdc run` cannot replicate through it, write the database's own host and port in source.dsn.",
        )  # fmt: skip
    if facts.wal_level == "logical":
        yield Finding("ok", "wal_level", "logical")
    else:
        yield Finding(
            "error", "wal_level", f"{facts.wal_level}, must be logical",
            "ALTER SYSTEM SET wal_level = logical; -- then restart the server;"
            "\n-- RDS, Aurora: rds.logical_replication = 1; Cloud SQL: cloudsql.logical_decoding = on;"
            " Azure: wal_level in the server parameters; Neon: the project's settings",
        )  # fmt: skip
    role = quote_identifier(facts.role)
    if facts.may_replicate:
        yield Finding("ok", "role", f"{facts.role} may replicate")
    else:
        yield Finding(
            "error", "role", f"{facts.role} may not replicate",
            f"ALTER ROLE {role} REPLICATION; -- on RDS: GRANT rds_replication TO {role};",
        )  # fmt: skip
    name = config.application_name
    if _is_synchronous(name, facts.synchronous_standby_names):
        yield Finding(
            "error", "synchronous_standby_names",
            f"matches {name}: commits of the application would wait for the reader",
            "Name the standbys one by one in synchronous_standby_names.",
        )  # fmt: skip


def _is_synchronous(name: str, standby_names: str) -> bool:
    """Whether synchronous_standby_names matches a client's name: by whole names, whatever their case.

    Source: https://www.postgresql.org/docs/current/runtime-config-replication.html#GUC-SYNCHRONOUS-STANDBY-NAMES
    """
    names = {found.strip('"').lower() for found in re.findall(r'"[^"]*"|[^\s,()]+', standby_names)}
    return not names.isdisjoint(("*", name.lower()))


def _events(source: Source, config: ReaderConfig, mappings: list[EventMapping]) -> Iterator[Finding]:
    """The events; `mappings` takes those that fit."""
    tables = describe_tables(source, tuple({event.table for event in config.events}))
    large = bytes_out_of_line(source, list(tables))
    for event in config.events:
        thing = f"event {event.label}"
        try:
            mapping = map_event(event, tables.get(event.table))
        except StatecastError as error:
            yield Finding("error", thing, str(error), error.remedy)
            continue
        mappings.append(mapping)
        what = f"{counted(len(mapping.columns), 'column')} of {event.table}, key ({', '.join(mapping.key)})"
        yield Finding("ok", thing, f"{what}; its owner must not {_must_not(mapping)}")
        unlisted = [column.name for column in mapping.table.columns if column.name not in mapping.names]
        if unlisted and event.columns != ALL_COLUMNS:
            yield Finding("ok", thing, f"not published: {', '.join(unlisted)}")
        if event.table in large and mapping.table.identity != "f" and event.unchanged_toast == "partial":
            yield Finding(
                "warning", thing,
                f"{event.table} holds {size(large[event.table])} of large values: an update that leaves one as it was"
                " is published without it (replicas keep theirs)",
                f"ALTER TABLE {event.table} REPLICA IDENTITY FULL; -- if every event must be whole; it makes more WAL",
            )  # fmt: skip


def _must_not(mapping: EventMapping) -> str:
    """What would make the application's own UPDATE and DELETE fail, once the table is published."""
    match mapping.table.identity:
        case "f":
            return "set REPLICA IDENTITY NOTHING"
        case "i":
            return "drop the index of its replica identity or set REPLICA IDENTITY NOTHING"
    return "drop its primary key or set REPLICA IDENTITY NOTHING"


def _grants(source: Source, mappings: Sequence[EventMapping], role: str) -> Iterator[Finding]:
    columns: dict[TableName, list[str]] = {}
    for mapping in mappings:
        names = columns.setdefault(mapping.table.name, [])
        names += (name for name in dict.fromkeys((*mapping.names, *mapping.key)) if name not in names)
    refused, grantee = unreadable(source, columns), quote_identifier(role)
    for table, lacking in refused.items():
        schema, listed = quote_identifier(table.schema), ", ".join(map(quote_identifier, lacking.columns))
        usage = "" if lacking.schema_is_open else f"GRANT USAGE ON SCHEMA {schema} TO {grantee};\n"
        yield Finding(
            "error", f"table {table}", f"{role} may not read {', '.join(lacking.columns)}",
            f"{usage}GRANT SELECT ({listed}) ON {table} TO {grantee};",
        )  # fmt: skip
    if mappings and not refused:
        yield Finding("ok", "grants", f"{role} may read every listed column")


def _publication(
    source: Source, config: ReaderConfig, mappings: Sequence[EventMapping], facts: SourceFacts
) -> Iterator[Finding]:
    thing, name = f"publication {config.publication}", quote_identifier(config.publication)
    publication = find_publication(source, config.publication)
    wanted = list(dict.fromkeys(mapping.table.name for mapping in mappings))
    if publication is None:
        if wanted and not facts.may_create:
            made = (
                f"CREATE PUBLICATION {name} FOR TABLE {', '.join(f'ONLY {table}' for table in wanted)}"
                " WITH (publish = 'insert, update, delete, truncate', publish_via_partition_root = true);"
            )
            yield Finding(
                "error", thing, f"does not exist, and {facts.role} may not make it",
                f"{made} -- as the owner of the tables",
            )  # fmt: skip
        else:
            yield Finding("warning", thing, "does not exist yet; `cdc run` makes it")
        return
    if not publication.complete:
        yield Finding(
            "error", thing, "leaves out some kind of change",
            f"ALTER PUBLICATION {name} SET (publish = 'insert, update, delete, truncate',"
            " publish_via_partition_root = true);",
        )  # fmt: skip
    for table in wanted:
        if table not in publication.tables:
            yield Finding(
                "warning", thing, f"{table} is missing; `cdc run` adds it, if {facts.role} owns both",
                f"ALTER PUBLICATION {name} ADD TABLE ONLY {table};",
            )  # fmt: skip
        elif not publication.tables[table]:
            yield Finding(
                "error", thing, f"publishes only some columns or rows of {table}",
                f"ALTER PUBLICATION {name} DROP TABLE ONLY {table}; ALTER PUBLICATION {name} ADD TABLE ONLY {table};",
            )  # fmt: skip
    if publication.complete and all(publication.tables.get(table) for table in wanted):
        yield Finding("ok", thing, f"publishes whole rows of {counted(len(wanted), 'table')}")


def _slot(source: Source, config: ReaderConfig, facts: SourceFacts) -> Iterator[Finding]:
    thing = f"slot {config.source.slot}"
    slot = find_slot(source, config.source.slot)
    if slot is None:
        yield Finding("warning", thing, "does not exist yet; `cdc run` makes it")
        yield from free_slots(facts)
    elif slot.wal_status == "lost":
        yield Finding(
            "error", thing, "is lost: Postgres removed WAL that it still needed",
            "cdc snapshot --all # then cdc run: a fresh snapshot reconciles the replicas",
        )  # fmt: skip
    else:
        reader = f"read by PID {slot.active_pid}" if slot.active_pid else "read by nobody"
        yield Finding("ok", thing, f"{slot.wal_status}, {reader}, holds {size(slot.retained_bytes)} of WAL")
    if slot is None or slot.active_pid is None:
        yield from _free("max_wal_senders", facts.senders, facts.max_senders)
    if facts.max_slot_wal_keep_size != "-1":
        yield Finding("ok", "max_slot_wal_keep_size", facts.max_slot_wal_keep_size)
        return
    keep, why = _keep_size(facts)
    yield Finding(
        "warning", "max_slot_wal_keep_size", "-1: a reader that is down for long fills the primary's disk",
        f"ALTER SYSTEM SET max_slot_wal_keep_size = '{keep >> 20}MB'; SELECT pg_reload_conf(); -- {why}",
    )  # fmt: skip


def free_slots(facts: SourceFacts) -> Iterator[Finding]:
    """Whether one more slot can be made."""
    return _free("max_replication_slots", facts.slots, facts.max_slots)


def _free(setting: str, used: int, limit: int) -> Iterator[Finding]:
    if used < limit:
        yield Finding("ok", setting, f"{limit}, {used} in use")
    else:
        yield Finding(
            "error", setting, f"all {limit} are in use",
            f"ALTER SYSTEM SET {setting} = {limit + 10}; -- then restart the server",
        )  # fmt: skip


def _keep_size(facts: SourceFacts) -> tuple[int, str]:
    """How much WAL the slot may hold, in bytes, and why just that."""
    if facts.wal_bytes_per_second is None:
        wanted, why = _USUAL_KEEP_BYTES, "a guess"
    else:
        wanted = max(int(facts.wal_bytes_per_second * _DAY_SECONDS), _LEAST_KEEP_BYTES)
        why = f"a day's WAL at the average of {size(facts.wal_bytes_per_second)}/s, and 1 GB at least"
    if facts.data_directory is not None and facts.by_socket and Path(facts.data_directory).is_dir():  # its disk is here
        half = shutil.disk_usage(facts.data_directory).free // 2
        return min(wanted, half), f"{why}; not more than half of the {size(2 * half)} that are free"
    return wanted, f"{why}; less than the disk has free"
