"""What `cdc check` says of the publication and of the slot, and of which was there first.

A slot's changes are published as the catalog stood when they were written: before there was a publication, Postgres
has none to look them up in, and ends the stream (before 18) or leaves them out (from 18 on). So it must be older.
No catalog keeps the position at which a publication was made. What can be known is whether its row was written by a
transaction that had ended before any that the slot still needs; and that one which is still to be made is younger.
Source: https://www.postgresql.org/docs/current/view-pg-replication-slots.html (catalog_xmin)
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Final

from cdc.catalog import IdentityMissing, check_identity
from cdc.config import ReaderConfig
from cdc.event_mapping import EventMapping
from cdc.init.sql_text import filled
from cdc.related.mapping import tables_of
from cdc.server.facts import ServerFacts
from cdc.source.connection import Source
from cdc.source.publication import PUBLISHED, Publication
from cdc.source.slot import Slot
from cdc.source.tables import describe_tables
from cdc.wording import counted, size
from transforms.finding import Finding
from transforms.names import TableName, quote_identifier

_IS_OLDER: Final = """
    SELECT age(p.xmin) > age(s.catalog_xmin) FROM pg_publication p, pg_replication_slots s
    WHERE p.pubname = %(publication)s AND s.slot_name = %(slot)s
"""
_LISTED: Final = """
    SELECT n.nspname::text, c.relname::text FROM pg_publication p
    JOIN pg_publication_rel r ON r.prpubid = p.oid
    JOIN pg_class c ON c.oid = r.prrelid
    JOIN pg_namespace n ON n.oid = c.relnamespace
    WHERE p.pubname = %(publication)s
"""


def publication_findings(
    source: Source,
    config: ReaderConfig,
    mappings: Sequence[EventMapping],
    publication: Publication | None,
    slot: Slot | None,
    facts: ServerFacts,
) -> Iterator[Finding]:
    """Whether it holds what is mapped, and not what it must not. Raises SourceError."""
    wanted = list(dict.fromkeys(table.name for mapping in mappings for table in mapping.tables.values()))
    if publication is None:
        yield from _missing(config, wanted, slot, facts)
        return
    thing, name = f"publication {config.publication}", quote_identifier(config.publication)
    yield from unfit_findings(config.publication, publication, wanted)
    for table in wanted:
        if table not in publication.tables:
            yield Finding(
                "warning", thing, f"{table} is missing; `cdc run` adds it, if {facts.role} owns both",
                f"ALTER PUBLICATION {name} ADD TABLE ONLY {table};",
            )  # fmt: skip
    yield from _children(source, config, mappings)
    if publication.complete and all(publication.tables.get(table) for table in wanted):
        both = {"publication": config.publication, "slot": config.source.slot}
        is_older = any(is_known_to_be for (is_known_to_be,) in source.query(_IS_OLDER, both))
        what = f"publishes whole rows of {counted(len(wanted), 'table')}"
        yield Finding("ok", thing, what + ", and is older than the slot" * is_older)


def unfit_findings(name: str, publication: Publication, wanted: Sequence[TableName]) -> Iterator[Finding]:
    """Of what it publishes, all that is not whole."""
    thing, alter = f"publication {name}", f"ALTER PUBLICATION {quote_identifier(name)}"
    if not publication.complete:
        what = "leaves out some kind of change"
        yield Finding("error", thing, what, f"{alter}\n    SET ({PUBLISHED});")
    for table in wanted:
        if publication.tables.get(table) is False:
            yield Finding(
                "error", thing, f"publishes only some columns or rows of {table}",
                f"{alter} DROP TABLE ONLY {table};\n{alter} ADD TABLE ONLY {table};",
            )  # fmt: skip


def _missing(
    config: ReaderConfig, wanted: Sequence[TableName], slot: Slot | None, facts: ServerFacts
) -> Iterator[Finding]:
    thing, name = f"publication {config.publication}", quote_identifier(config.publication)
    yield from order_findings(config, None, slot)
    if wanted and not facts.may_create:
        listed = filled(f"CREATE PUBLICATION {name} FOR TABLE", [f"ONLY {table}" for table in wanted], "")
        yield Finding(
            "error", thing, f"does not exist, and {facts.role} may not make it",
            f"-- as the owner of the tables\n{listed}\n    WITH ({PUBLISHED});",
        )  # fmt: skip
    elif slot is None:
        yield Finding("warning", thing, "does not exist yet; `cdc run` makes it")


def order_findings(config: ReaderConfig, publication: Publication | None, slot: Slot | None) -> Iterator[Finding]:
    """Whether the publication is known to be younger than the slot, since it is still to be made."""
    if publication is None and slot is not None:
        yield Finding(
            "error", f"publication {config.publication}",
            f"does not exist, but slot {config.source.slot} does: what was written before a publication is made cannot"
            " be read through it",
            f"SELECT pg_drop_replication_slot('{config.source.slot}');"
            "\n-- `cdc run` then makes both, in order; had it published before, it asks for `cdc snapshot --all` first",
        )  # fmt: skip


def _children(source: Source, config: ReaderConfig, mappings: Sequence[EventMapping]) -> Iterator[Finding]:
    """Tables that a publication took along, being made for their parent without ONLY, though no event maps them."""
    mapped = {table for event in config.events for table in tables_of(event)}
    parents = {child: mapping.table.name for mapping in mappings for child in mapping.table.children}
    listed = [TableName(*row) for row in source.query(_LISTED, {"publication": config.publication})]
    taken_along = [name for name in listed if name in parents and name not in mapped]
    for child, table in describe_tables(source, taken_along).items():
        told = f"publishes {child} too, which inherits from {parents[child]} and is in no event"
        remedy = f"ALTER PUBLICATION {quote_identifier(config.publication)} DROP TABLE ONLY {child};"
        try:
            check_identity(table)
        except IdentityMissing:
            what = f"{told}: without a replica identity, the application's UPDATE and DELETE on it fail"
            yield Finding("error", f"publication {config.publication}", what, remedy)
        else:
            what = f"{told}: its changes are sent to the reader for nothing"
            yield Finding("warning", f"publication {config.publication}", what, remedy)


def slot_finding(config: ReaderConfig, slot: Slot | None) -> Finding:
    """Whether the slot still holds what the reader will ask for."""
    thing = f"slot {config.source.slot}"
    if slot is None:
        return Finding("warning", thing, "does not exist yet; `cdc run` makes it")
    if slot.wal_status == "lost":
        return Finding(
            "error", thing, f"is lost: {slot.lost_because or 'it cannot be read any more'}",
            "cdc snapshot --all # then cdc run: a fresh snapshot reconciles the replicas",
        )  # fmt: skip
    reader = f"read by PID {slot.active_pid}" if slot.active_pid else "read by nobody"
    return Finding("ok", thing, f"{slot.wal_status}, {reader}, holds {size(slot.retained_bytes)} of WAL")
