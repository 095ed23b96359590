"""The SQL that lets a role of its own read the log and just the listed columns, and makes the publication."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from typing import Final

from cdc.event_mapping import EventMapping
from cdc.init.plan import PlannedEvent
from cdc.init.sql_text import LINE, filled, identifier, table_name
from cdc.server.facts import ServerFacts
from cdc.source.publication import PUBLISHED, Publication
from transforms.names import quote_identifier

_SCHEMA_OF_TYPE: Final = re.compile(r'(?P<schema>"(?:[^"]|"")*"|[^\s".(\[]+)\.')


def access_sql(
    role: str,
    publication: str,
    events: Sequence[PlannedEvent],
    server: ServerFacts,
    existing: Publication | None,
    *,
    role_exists: bool,
) -> str:
    """One transaction, for a superuser or for the tables' owner where it may create roles and publications.

    The role gets no password: until it is given one it cannot log in by password, and none has to be thought up by
    whoever pastes this. COPY of the listed columns is all that a snapshot does, so SELECT on those columns is enough;
    key values are cast to their types, so schemas of key types must be usable.
    """
    lines = ["BEGIN;", *_role(role, events, server, exists=role_exists)]
    lines.append(f"GRANT CONNECT ON DATABASE {identifier(server.database)} TO {role};")
    schemas = sorted({identifier(planned.facts.name.schema) for planned in events} | set(_key_type_schemas(events)))
    lines.append(filled("GRANT USAGE ON SCHEMA", schemas, f" TO {role};"))
    for planned in events:
        columns = filled("GRANT SELECT (", (identifier(column.name) for column in planned.mapping.columns), ")")
        lines.append(_continued(columns, f"ON {table_name(planned.facts.name)} TO {role};"))
    lines += _publication(publication, events, existing)
    return "\n".join([*lines, "COMMIT;"])


def _continued(before: str, after: str) -> str:
    """On the same line where that has room."""
    room = len(before.rpartition("\n")[2]) + 1 + len(after) <= LINE
    return f"{before} {after}" if room else f"{before}\n    {after}"


def _role(role: str, events: Sequence[PlannedEvent], server: ServerFacts, *, exists: bool) -> Iterator[str]:
    provider = server.provider
    granted = provider.replication_role is not None
    attributes = ["LOGIN"] if granted else ["LOGIN", "REPLICATION"]
    if any(planned.facts.row_security for planned in events):
        attributes.append("BYPASSRLS")
    if provider.granted_by:
        yield f"-- {provider.granted_by}"
    verb = "ALTER" if exists else "CREATE"
    yield f"{verb} ROLE {role} {' '.join(attributes)};"
    if granted:
        yield provider.let_replicate(role)


def _publication(name: str, events: Sequence[PlannedEvent], existing: Publication | None) -> Iterator[str]:
    """The publication as the reader would make it, or what an existing one lacks."""
    tables = [planned.facts.name for planned in events]
    if existing is None:
        listed = filled(f"CREATE PUBLICATION {name} FOR TABLE", [f"ONLY {table_name(table)}" for table in tables], "")
        yield f"{listed}\n    WITH ({PUBLISHED});"
        return
    missing = [f"ONLY {table_name(table)}" for table in tables if table not in existing.tables]
    if missing:
        yield filled(f"ALTER PUBLICATION {name} ADD TABLE", missing, ";")
    if not existing.complete:
        yield f"ALTER PUBLICATION {name}\n    SET ({PUBLISHED});"


def _key_type_schemas(events: Sequence[PlannedEvent]) -> Iterator[str]:
    for planned in events:
        yield from (schema for column in _key_columns(planned.mapping) if (schema := _schema(column)))


def _key_columns(mapping: EventMapping) -> list[str]:
    return [column.type.base_type for column in mapping.columns if column.name in mapping.key]


def _schema(type_name: str) -> str | None:
    """The schema that a type's name carries, as SQL; types of pg_catalog carry none."""
    found = _SCHEMA_OF_TYPE.match(type_name)
    if found is None:
        return None
    written = found["schema"]
    return identifier(written[1:-1].replace('""', '"')) if written.startswith('"') else quote_identifier(written)
