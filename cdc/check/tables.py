"""What `cdc check` says of the mapped tables: whether they fit their events, and what the role may read of them."""

from __future__ import annotations

import glob
import shlex
from collections.abc import Iterator, Mapping, Sequence
from importlib import resources
from typing import NamedTuple

from cdc.catalog import check_own_log
from cdc.check.published import Before
from cdc.check.related import index_findings, related_findings
from cdc.config import ALL_COLUMNS, EventConfig, ReaderConfig
from cdc.event_mapping import EventMapping
from cdc.event_shape import judged_shape
from cdc.related.mapping import tables_of
from cdc.source.connection import Source
from cdc.source.publication import find_publication
from cdc.source.relations import expect_comparable
from cdc.source.tables import describe_tables
from cdc.stopping import Stop
from cdc.wording import counted, size
from transforms.condition.refusal import excerpt
from transforms.errors import StatecastError
from transforms.finding import Finding
from transforms.names import TableName, quote_identifier
from transforms.schema import SchemaDocument

_GRANTS = resources.files("cdc.check").joinpath("grants.sql").read_text()
_POLICIES = """
    SELECT n.nspname::text, c.relname::text
    FROM unnest(%(schemas)s::text[], %(names)s::text[]) AS asked (schema, name)
    JOIN pg_namespace n ON n.nspname = asked.schema
    JOIN pg_class c ON c.relnamespace = n.oid AND c.relname = asked.name
    WHERE row_security_active(c.oid)
"""
_LARGE = """
    SELECT n.nspname::text, c.relname::text, toast.bytes
    FROM unnest(%(schemas)s::text[], %(names)s::text[]) AS asked (schema, name)
    JOIN pg_namespace n ON n.nspname = asked.schema
    JOIN pg_class c ON c.relnamespace = n.oid AND c.relname = asked.name
    CROSS JOIN LATERAL (
        SELECT greatest(t.relpages * current_setting('block_size')::bigint, pg_stat_get_live_tuples(t.oid) * 2000)
        FROM pg_class t WHERE t.oid = c.reltoastrelid
    ) AS toast (bytes)
    WHERE toast.bytes > 0
"""
"""By the last VACUUM, or by the counters, in pieces of 2 kB: pg_relation_size would wait for an ALTER TABLE in hand."""

_MUST_NOT = {
    "f": "set REPLICA IDENTITY NOTHING",
    "i": "drop the index of the replica identity or set REPLICA IDENTITY NOTHING",
}


def event_findings(
    source: Source, config: ReaderConfig, mappings: list[EventMapping], before: Before
) -> Iterator[Finding]:
    """The events; `mappings` takes those that fit; `before`: what was published already."""
    tables = describe_tables(source, tuple({table for event in config.events for table in tables_of(event)}))
    publication = find_publication(source, config.publication)
    published = {*tables, *(publication.tables if publication else ())}
    large = _bytes_out_of_line(source, list(tables))
    for event in config.events:
        thing, old = f"event {event.label}", before.documents.get(event.label)
        try:
            shape = judged_shape(event, tables, old, before.known)
            if isinstance(shape, Stop):
                yield Finding("error", thing, f"stops, all others go on: {shape.reason}", shape.remedy)
                continue
            mapping, document = shape
            for member in mapping.tables.values():
                check_own_log(member, published)
            expect_comparable(source, mapping)
        except StatecastError as error:
            yield Finding("error", thing, str(error).removeprefix(f"{thing}: "), error.remedy)
            continue
        mappings.append(mapping)
        if old is not None and document.rev > old.rev:
            yield _next_revision(document, old)
        yield from _fitting(event, mapping, large.get(event.table, 0))
        unmapped = [child for child in mapping.table.children if child not in {each.table for each in config.events}]
        if unmapped:
            yield _unmapped_children(mapping, unmapped)
        yield from related_findings(mapping)
    yield from index_findings(source, mappings)
    yield from _duties(mappings)


def _fitting(event: EventConfig, mapping: EventMapping, large_bytes: int) -> Iterator[Finding]:
    thing = f"event {event.label}"
    what = f"{counted(len(mapping.columns), 'column')} of {event.table}, key ({', '.join(mapping.key)})"
    yield Finding("ok", thing, what)
    listed = {column.name for column in mapping.columns}
    unlisted = [column.name for column in mapping.table.columns if column.name not in listed]
    if unlisted and event.columns != ALL_COLUMNS:
        yield Finding("ok", thing, f"not published: {', '.join(unlisted)}")
    if masked := [f"{field.column.name} ({field.masked})" for field in mapping.fields if field.masked]:
        yield Finding("ok", thing, f"masked: {', '.join(masked)}")
    if mapping.where is not None:
        yield Finding("ok", thing, f"only rows where {excerpt(mapping.where)}")
    if large_bytes and mapping.table.identity != "f":
        yield _large_values(thing, event, large_bytes)


def _large_values(thing: str, event: EventConfig, large_bytes: int) -> Finding:
    """What becomes of updates that leave large values out."""
    table = f"{event.table} holds about {size(large_bytes)} of large values: an update that leaves one as it was"
    if event.unchanged_toast == "reread":
        return Finding("ok", thing, f"{table} does not send it, so its row is read again by its key")
    full = f"ALTER TABLE {event.table} REPLICA IDENTITY FULL;"
    if event.unchanged_toast == "partial":
        return Finding(
            "warning", thing,
            f"{table} is published without it (replicas keep theirs)",
            '-- if every event must be whole: unchanged_toast = "reread" (the default); or, at the price of more WAL:\n'
            + full,
        )  # fmt: skip
    return Finding("warning", thing, f'{table} stops the reader (unchanged_toast = "halt")', full)


def _next_revision(document: SchemaDocument, old: SchemaDocument) -> Finding:
    added = [name for name in document.names if name not in old.names]
    what = f"{', '.join(added)} is new and nullable" if added else "its fields stand in another order"
    told = f"revision {document.rev}: {what}, `cdc run` makes a snapshot"
    return Finding("ok", f"event {document.label}", told)


def _duties(mappings: Sequence[EventMapping]) -> Iterator[Finding]:
    """What would make the application's own UPDATE and DELETE fail, once these tables are published."""
    tables: dict[str, list[TableName]] = {}
    members = (table for mapping in mappings for table in mapping.tables.values())
    for table in {table.name: table for table in members}.values():
        tables.setdefault(table.identity, []).append(table.name)
    for identity, names in tables.items():
        must_not = _MUST_NOT.get(identity, "drop the primary key or set REPLICA IDENTITY NOTHING")
        yield Finding("ok", "tables' owner", f"must not {must_not} ({', '.join(map(str, names))})")


def _unmapped_children(mapping: EventMapping, children: Sequence[TableName]) -> Finding:
    parent, names = mapping.table.name, ", ".join(map(str, children))
    chosen = " ".join(f"--table {shlex.quote(glob.escape(f'{child.schema}.{child.name}'))}" for child in children)
    inherit, sections = ("inherits", "its section") if len(children) == 1 else ("inherit", "their sections")
    return Finding(
        "warning", f"event {mapping.label}",
        f"rows of {names}, which {inherit} from {parent}, are in no event: a SELECT on the parent shows them, but the"
        " log has them under the table that holds them",
        f"cdc init {chosen} -o - # writes {sections}",
    )  # fmt: skip


def grant_findings(source: Source, mappings: Sequence[EventMapping], role: str) -> Iterator[Finding]:
    """Whether the role may read what a snapshot reads. Raises SourceError."""
    columns: dict[TableName, list[str]] = {}
    for mapping in mappings:
        for table, read in mapping.read_by_table.items():
            names = columns.setdefault(table, [])
            names += (column.name for column in read if column.name not in names)
    refused, grantee = _unreadable(source, columns), quote_identifier(role)
    for table, lacking in refused.items():
        schema, listed = quote_identifier(table.schema), ", ".join(map(quote_identifier, lacking.columns))
        usage = "" if lacking.schema_is_open else f"GRANT USAGE ON SCHEMA {schema} TO {grantee};\n"
        yield Finding(
            "error", f"table {table}", f"{role} may not read {', '.join(lacking.columns)}",
            f"{usage}GRANT SELECT ({listed}) ON {table} TO {grantee};",
        )  # fmt: skip
    hidden = [TableName(*row) for row in source.query(_POLICIES, _by_name(list(columns)))]
    for table in hidden:
        yield Finding(
            "error", f"table {table}", f"row-level security applies to {role}: what it hides would be in no snapshot",
            f"ALTER ROLE {grantee} BYPASSRLS; -- as a superuser",
        )  # fmt: skip
    if mappings and not refused and not hidden:
        yield Finding("ok", "grants", f"{role} may read every listed column")


class _Unreadable(NamedTuple):
    columns: tuple[str, ...]
    schema_is_open: bool
    """Whether the role has USAGE on the schema."""


def _unreadable(source: Source, columns: Mapping[TableName, Sequence[str]]) -> dict[TableName, _Unreadable]:
    """Of these tables' columns, those that the role may not SELECT."""
    asked = [(table.schema, table.name, column) for table, names in columns.items() for column in names]
    schemas, names, listed = map(list, zip(*asked, strict=True)) if asked else ([], [], [])
    found: dict[TableName, _Unreadable] = {}
    for schema, name, column, is_open in source.query(_GRANTS, {"schemas": schemas, "names": names, "columns": listed}):
        before = found.get(TableName(schema, name), _Unreadable((), is_open))
        found[TableName(schema, name)] = before._replace(columns=(*before.columns, column))
    return found


def _bytes_out_of_line(source: Source, tables: Sequence[TableName]) -> dict[TableName, int]:
    """How much each table that has large values keeps out of line."""
    return {TableName(schema, name): size for schema, name, size in source.query(_LARGE, _by_name(tables))}


def _by_name(tables: Sequence[TableName]) -> dict[str, list[str]]:
    return {"schemas": [table.schema for table in tables], "names": [table.name for table in tables]}
