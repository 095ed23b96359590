"""The publication: which tables the log is read for."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Final

import psycopg
from psycopg import sql

from cdc.errors import AccessDenied, SourceBusy, SourceError
from cdc.source.connection import Source, translated_errors
from transforms.names import TableName

PUBLISHED: Final = "publish = 'insert, update, delete, truncate',\n        publish_via_partition_root = true"
"""The settings of our publications, as SQL writes them."""

_TABLES: Final = """
    SELECT n.nspname, c.relname, r.prattrs IS NULL AND r.prqual IS NULL, 'table ' || r.oid
    FROM pg_publication_rel r JOIN pg_class c ON c.oid = r.prrelid
    JOIN pg_namespace n ON n.oid = c.relnamespace WHERE r.prpubid = %(oid)s::oid
    UNION ALL  -- published by way of FOR ALL TABLES or FOR TABLES IN SCHEMA
    SELECT n.nspname, c.relname, true, coalesce('schema ' || s.oid, 'all tables') FROM pg_publication p
    CROSS JOIN pg_namespace n
    LEFT JOIN pg_publication_namespace s ON s.pnpubid = p.oid AND s.pnnspid = n.oid
    JOIN pg_class c ON c.relnamespace = n.oid AND c.relkind IN ('r', 'p')
    WHERE p.oid = %(oid)s::oid AND (p.puballtables OR s.oid IS NOT NULL)
      AND n.nspname NOT IN ('pg_catalog', 'information_schema', 'pg_toast')
"""


LOCK_SECONDS = 5
"""How long a change of the publication waits for the locks of its tables, before it is told and tried again."""


class TablesLocked(SourceBusy):
    """Somebody alters a table that is to be published."""

    remedy = "Wait: it is tried again. If it lasts, see who holds the lock: SELECT * FROM pg_locks WHERE granted;"


class PublicationUnfit(SourceError):
    """The publication does not hold what the configuration maps, and this role may not change it."""

    remedy = "Have the tables' owner alter the publication; `cdc check` says what it lacks."


@dataclass(frozen=True, slots=True)
class Publication:
    """A publication as it stands."""

    oid: int
    tables: dict[TableName, bool]
    """Published tables, and whether all columns and rows of each are."""
    complete: bool
    """Whether it publishes inserts, updates, deletes and truncates, partitions through their root."""
    grounds: dict[TableName, frozenset[str]] = field(default_factory=dict)
    """By what each table is published: rows of the catalog, which are other ones once it was taken out and added again.

    FOR ALL TABLES takes no table out; where a schema is published, that a table left it and came back leaves no trace.
    """
    version: str = ""
    """Of its row in pg_publication: another one after ALTER PUBLICATION ... SET (...), which may leave changes out."""


def find_publication(source: Source, name: str) -> Publication | None:
    """The publication as it stands, or None. Raises SourceError."""
    found = source.query(
        "SELECT oid::bigint, pubinsert AND pubupdate AND pubdelete AND pubtruncate AND pubviaroot, xmin::text"
        " FROM pg_publication WHERE pubname = %s",
        [name],
    )
    if not found:
        return None
    oid, complete, version = found[0]
    tables: dict[TableName, bool] = {}
    grounds: dict[TableName, frozenset[str]] = {}
    for schema, table, whole, ground in source.query(_TABLES, {"oid": oid}):
        published = TableName(schema, table)
        tables[published] = whole
        grounds[published] = grounds.get(published, frozenset()) | {ground}
    return Publication(oid, tables, complete, grounds, version)


def create_publication(source: Source, name: str, tables: Sequence[TableName]) -> None:
    """Create the publication of whole rows. Raises PublicationUnfit with the SQL where the role may not."""
    made = sql.SQL("CREATE PUBLICATION {} FOR TABLE {} WITH ({})")
    _alter(source, made.format(sql.Identifier(name), _table_list(tables), sql.SQL(PUBLISHED)))


def add_to_publication(source: Source, name: str, tables: Sequence[TableName]) -> None:
    """Add tables. Raises PublicationUnfit with the SQL where the role may not.

    Before a table's first chunk is read, nobody who wrote to it unpublished may be left (see `transactions.writers`).
    """
    statement = sql.SQL("ALTER PUBLICATION {} ADD TABLE {}").format(sql.Identifier(name), _table_list(tables))
    _alter(source, statement)


def drop_publication(source: Source, name: str) -> None:
    """Drop the publication if it is there. Raises SourceError."""
    with translated_errors():
        source.connection.execute(sql.SQL("DROP PUBLICATION IF EXISTS {}").format(sql.Identifier(name)))


def _alter(source: Source, statement: sql.Composed) -> None:
    try:
        with translated_errors(), source.connection.transaction():
            source.connection.execute(f"SET LOCAL lock_timeout = '{LOCK_SECONDS}s'".encode())
            try:
                source.connection.execute(statement)
            except psycopg.errors.LockNotAvailable as error:
                raise TablesLocked(
                    "the publication cannot be changed while another session holds a lock on one of its tables, as"
                    " ALTER TABLE does"
                ) from error
    except AccessDenied as error:
        text = statement.as_string(source.connection)
        raise PublicationUnfit(
            f"the publication has to be changed, and this role may not: {error}",
            remedy=f"Have the tables' owner run: {text};",
        ) from error


def _table_list(tables: Sequence[TableName]) -> sql.Composed:
    """ONLY: tables that inherit from a mapped one may lack an identity, and then their owner's UPDATE would fail.

    Partitions are published with their root all the same.
    Source: https://www.postgresql.org/docs/current/sql-createpublication.html
    """
    names = [sql.Identifier(table.schema, table.name) for table in tables]
    return sql.SQL(", ").join(sql.SQL("ONLY {}").format(name) for name in names)
