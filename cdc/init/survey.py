"""The session of `cdc init`: reads catalog, counters and file sizes of a database in production, and nothing else.

It may not write, waits for no lock for long, and reads no row of any table. Where somebody alters a table just then,
sizes are those of the last VACUUM or ANALYZE.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from importlib import resources
from typing import Any, Final
from urllib.parse import quote

import psycopg
from psycopg.rows import dict_row

from cdc.catalog import Table
from cdc.errors import source_error
from cdc.init.facts import KeyedBy, TableFacts
from cdc.source.connection import Source, translated_errors
from cdc.source.tables import describe_tables
from transforms.address import Address
from transforms.names import TableName

log = logging.getLogger(__name__)

_TABLES = resources.files("cdc.init").joinpath("tables.sql").read_text()

_LIMITS = "SET default_transaction_read_only = on; SET statement_timeout = '15s'; SET lock_timeout = '1s'"
_USUAL_PORT: Final = 5432
_DESCRIBED_AT_ONCE = 200
"""The catalog's query takes time with the square of the tables that it is asked for."""


class Survey(Source):
    """One read-only SQL session with a database that is to become a source."""

    def __init__(self, address: Address, application_name: str) -> None:
        """Connect. Raises SourceError, NotEncrypted."""
        super().__init__(address, application_name)
        with translated_errors():
            self.connection.execute(_LIMITS)

    def has_role(self, name: str) -> bool:
        """Whether the server has a role of this name."""
        return bool(self.query("SELECT FROM pg_roles WHERE rolname = %(name)s", {"name": name}))

    def place(self) -> str:
        """Host and port as a URL has them; `HOST` where a Unix socket leads there, which may be far from the reader."""
        host, port = self.connection.info.host, self.connection.info.port
        if not host or host.startswith(("/", "@")):
            return "HOST"
        name = f"[{host}]" if ":" in host else quote(host, safe="")
        return name if port == _USUAL_PORT else f"{name}:{port}"

    def tables(self) -> list[TableFacts]:
        """Every table of the users' schemas; partitions are covered by their root."""
        try:
            rows = self._rows(measured=True)
        except psycopg.errors.LockNotAvailable:
            log.warning("a table is locked, as by an ALTER TABLE: sizes are those of the last VACUUM or ANALYZE")
            with translated_errors():
                rows = self._rows(measured=False)
        except psycopg.Error as error:
            raise source_error(error.sqlstate, str(error)) from error
        return [_facts(row) for row in rows]

    def _rows(self, *, measured: bool) -> list[dict[str, Any]]:
        with self.connection.cursor(row_factory=dict_row) as cursor:
            return cursor.execute(_TABLES.encode(), {"measured": measured}).fetchall()

    def describe(self, names: Sequence[TableName]) -> dict[TableName, Table]:
        """What the catalog says of tables, for any number of them."""
        tables: dict[TableName, Table] = {}
        for start in range(0, len(names), _DESCRIBED_AT_ONCE):
            tables |= describe_tables(self, names[start : start + _DESCRIBED_AT_ONCE])
        return tables


def _facts(row: dict[str, Any]) -> TableFacts:
    name = TableName(row.pop("schema"), row.pop("name"))
    deferrable = row.pop("deferrable_key")
    return TableFacts(
        name,
        parents=tuple(TableName(*parent) for parent in row.pop("parents") or ()),
        stored=tuple(row.pop("stored")),
        virtual=tuple(row.pop("virtual")),
        toastable=frozenset(row.pop("toastable")),
        deferrable_key=KeyedBy(deferrable[0], tuple(deferrable[1])) if deferrable else None,
        unique_indexes=tuple(KeyedBy(index, tuple(columns)) for index, columns in row.pop("unique_indexes") or ()),
        partition_columns=tuple(row.pop("partition_columns") or ()),
        **row,
    )
