"""What `cdc check` asks of the source's server, and what it is told."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from importlib import resources
from typing import NamedTuple

from cdc.source.connection import Source
from transforms.names import TableName

_FACTS = resources.files("cdc").joinpath("facts.sql").read_text()
_GRANTS = resources.files("cdc").joinpath("grants.sql").read_text()
_LARGE = """
    SELECT n.nspname::text, c.relname::text, pg_relation_size(c.reltoastrelid)
    FROM unnest(%(schemas)s::text[], %(names)s::text[]) AS asked (schema, name)
    JOIN pg_namespace n ON n.nspname = asked.schema
    JOIN pg_class c ON c.relnamespace = n.oid AND c.relname = asked.name
    WHERE c.reltoastrelid <> 0 AND pg_relation_size(c.reltoastrelid) > 0
"""


class SourceFacts(NamedTuple):
    """The columns of facts.sql."""

    wal_level: str
    in_recovery: bool
    max_slots: int
    slots: int
    max_senders: int
    senders: int
    max_slot_wal_keep_size: str
    wal_bytes_per_second: float | None
    data_directory: str | None
    synchronous_standby_names: str
    tls: str | None
    """The protocol's version, or None: not encrypted."""
    by_socket: bool
    """Reached over a Unix socket."""
    backend_pid: int
    """As the server has it: a pooler tells its clients another."""
    role: str
    may_replicate: bool
    may_create: bool
    """CREATE on the database, without which it may not make a publication."""
    database: str


def source_facts(source: Source) -> SourceFacts:
    """Raises SourceError."""
    return SourceFacts(*source.query(_FACTS)[0])


class Unreadable(NamedTuple):
    """What the role may not read of a table."""

    columns: tuple[str, ...]
    schema_is_open: bool
    """Whether it has USAGE on the schema."""


def unreadable(source: Source, columns: Mapping[TableName, Sequence[str]]) -> dict[TableName, Unreadable]:
    """Of these tables' columns, those that the role may not SELECT. Raises SourceError."""
    asked = [(table.schema, table.name, column) for table, names in columns.items() for column in names]
    schemas, names, listed = map(list, zip(*asked, strict=True)) if asked else ([], [], [])
    found: dict[TableName, Unreadable] = {}
    for schema, name, column, is_open in source.query(_GRANTS, {"schemas": schemas, "names": names, "columns": listed}):
        before = found.get(TableName(schema, name), Unreadable((), is_open))
        found[TableName(schema, name)] = before._replace(columns=(*before.columns, column))
    return found


def bytes_out_of_line(source: Source, tables: Sequence[TableName]) -> dict[TableName, int]:
    """How much each table that has large values keeps out of line. Raises SourceError."""
    parameters = {"schemas": [table.schema for table in tables], "names": [table.name for table in tables]}
    return {TableName(schema, name): size for schema, name, size in source.query(_LARGE, parameters)}
