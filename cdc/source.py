"""The source database through SQL: catalog, publication, slot, marks, and the rows of chunks.

Nothing here holds a transaction open for longer than one chunk's read. Statements run in autocommit but for that.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from importlib import resources
from typing import Any

import psycopg
from psycopg import sql
from psycopg.rows import dict_row

from cdc.catalog import Column, Table
from cdc.chunking import Snapshot
from cdc.errors import AccessDenied, SourceError
from cdc.replication import session_conninfo, translated_errors
from transforms import copy_text
from transforms.address import Address
from transforms.column_type import ColumnType
from transforms.names import TableName
from transforms.position import LSN

_CATALOG = resources.files("cdc").joinpath("catalog.sql").read_text()
_COLUMN_TYPES = resources.files("cdc").joinpath("column_types.sql").read_text()


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


@dataclass(frozen=True, slots=True)
class Slot:
    """A replication slot as `pg_replication_slots` shows it."""

    plugin: str
    database: str
    confirmed: LSN
    restart: LSN
    wal_status: str
    active_pid: int | None
    retained_bytes: int
    safe_bytes: int | None
    """How much more may be written before the slot is lost; None when nothing limits it."""


@dataclass(frozen=True, slots=True)
class ChunkQuery:
    """Which rows to read: those behind `after` in the order of the key, or just those with one of `keys`."""

    table: TableName
    columns: tuple[Column, ...]
    key: tuple[Column, ...]
    after: tuple[str, ...] | None
    """Key values as Postgres' text, in the order of `key`."""
    limit: int
    keys: frozenset[bytes] | None = None
    """JSON objects, as entries carry them."""
    only: bool = False
    """Without the rows of tables that inherit from it, whose changes are not the table's; not for partitioned ones."""


@dataclass(frozen=True, slots=True)
class ChunkRows:
    """What a chunk's query saw."""

    snapshot: Snapshot
    rows: list[bytes]
    """Each in COPY's text format, with its line's end; the query's columns."""
    last_key: tuple[str, ...] | None
    size_bytes: int
    exhausted: bool
    """Whether there is nothing behind the last row."""


@dataclass(frozen=True, slots=True)
class TableShape:
    """What must not change while a chunk is read."""

    storage: str
    """Its files: another one after TRUNCATE and after every rewrite, which an older snapshot finds empty."""
    types: dict[str, str]
    """Column -> type."""


class _Enough(Exception):
    """A chunk has its bytes."""


class Source:
    """One SQL session with the source. Not for use from two threads at once."""

    def __init__(self, address: Address, application_name: str) -> None:
        """Connect. Raises SourceError, NotEncrypted."""
        conninfo = session_conninfo(address, application_name)
        with translated_errors():
            self._conn = psycopg.connect(conninfo, autocommit=True)
            self._conn.prepare_threshold = None
        self._types: dict[tuple[int, int], ColumnType] = {}

    def close(self) -> None:
        """End the session."""
        self._conn.close()

    def cancel(self) -> None:
        """End the statement that another thread is running here, if any."""
        with translated_errors():
            self._conn.cancel_safe(timeout=2)

    def query(self, statement: str, parameters: Mapping[str, object] | None = None) -> list[tuple[Any, ...]]:
        """The rows of a statement that only reads."""
        with translated_errors():
            return self._conn.execute(statement.encode(), parameters).fetchall()

    @property
    def backend_pid(self) -> int:
        """The server process' id, as libpq was told it."""
        return self._conn.info.backend_pid

    # --- catalog -----------------------------------------------------------------------------------------------------

    def setting(self, name: str) -> str:
        """A server setting, as SHOW prints it."""
        with translated_errors():
            row = self._conn.execute("SELECT current_setting(%s, true)", (name,)).fetchone()
        assert row is not None
        return row[0] or ""

    def database(self) -> str:
        """The database's name."""
        return self._conn.info.dbname

    def server_version(self) -> int:
        """The server's version, like 180006."""
        return self._conn.info.server_version

    def describe(self, names: Sequence[TableName]) -> dict[TableName, Table]:
        """What the catalog says of tables; those that are not there are left out."""
        parameters = {"schemas": [name.schema for name in names], "names": [name.name for name in names]}
        with translated_errors(), self._conn.cursor(row_factory=dict_row) as cursor:
            rows = cursor.execute(_CATALOG, parameters).fetchall()
        tables = {}
        for row in rows:
            listed = row["columns"] or []
            types = self.column_types([(column["type"], column["modifier"]) for column in listed])
            columns = tuple(
                Column(column["name"], type_, column["not_null"], column["generated"])
                for column, type_ in zip(listed, types, strict=True)
            )
            name = TableName(row["schema"], row["name"])
            tables[name] = Table(
                oid=row["oid"],
                name=name,
                kind=row["kind"],
                persistence=row["persistence"],
                columns=columns,
                primary_key=tuple(row["primary_key"]),
                unique_keys=tuple(frozenset(key) for key in row["unique_keys"]),
                identity=row["identity"],
                identity_columns=frozenset(row["identity_columns"]),
                leaves_without_identity=tuple(TableName(*leaf) for leaf in row["leaves_without_identity"]),
                estimated_rows=row["estimated_rows"] or 0,
            )
        return tables

    def column_types(self, types: Sequence[tuple[int, int]]) -> list[ColumnType]:
        """Types by OID and modifier. One that is gone from today's catalog is taken as text."""
        unknown = [pair for pair in dict.fromkeys(types) if pair not in self._types]
        if unknown:
            parameters = {"types": [oid for oid, _ in unknown], "modifiers": [modifier for _, modifier in unknown]}
            with translated_errors():
                rows = self._conn.execute(_COLUMN_TYPES, parameters).fetchall()
            for pair, (pg_type, base_type, base_oid, element_oid, delimiter) in zip(unknown, rows, strict=True):
                self._types[pair] = ColumnType(pg_type, base_type, base_oid, element_oid, delimiter.encode())
        return [self._types[pair] for pair in types]

    def forget_types(self) -> None:
        """Read types from the catalog again: an ALTER TYPE may have renamed or replaced some."""
        self._types.clear()

    def shape(self, table: int) -> TableShape:
        """What the catalog says now of the table with this OID."""
        with translated_errors():
            row = self._conn.execute(
                "SELECT (SELECT string_agg(relid::oid || ':' || pg_relation_filenode(relid), ' ' ORDER BY relid)"
                " FROM (SELECT relid FROM pg_partition_tree(%(oid)s::oid) UNION SELECT %(oid)s::oid) AS member),"
                " (SELECT jsonb_object_agg(attname, format_type(atttypid, atttypmod)) FROM pg_attribute"
                " WHERE attrelid = %(oid)s::oid AND attnum > 0 AND NOT attisdropped)",
                {"oid": table},
            ).fetchone()
        assert row is not None
        return TableShape(row[0] or "", row[1] or {})

    def oids(self, tables: Sequence[TableName]) -> dict[TableName, int]:
        """The OIDs of tables by name; those that are not there are left out."""
        with translated_errors():
            rows = self._conn.execute(
                "SELECT n.nspname, c.relname, c.oid::bigint FROM unnest(%s::text[], %s::text[]) AS t (schema, name)"
                " JOIN pg_namespace n ON n.nspname = t.schema JOIN pg_class c ON c.relnamespace = n.oid"
                " AND c.relname = t.name",
                ([table.schema for table in tables], [table.name for table in tables]),
            ).fetchall()
        return {TableName(schema, name): oid for schema, name, oid in rows}

    # --- publication and slot ----------------------------------------------------------------------------------------

    def publication(self, name: str) -> Publication | None:
        """The publication as it stands, or None."""
        with translated_errors():
            row = self._conn.execute(
                "SELECT oid::bigint, pubinsert AND pubupdate AND pubdelete AND pubtruncate AND pubviaroot"
                " FROM pg_publication WHERE pubname = %s",
                (name,),
            ).fetchone()
            if row is None:
                return None
            tables = self._conn.execute(
                "SELECT n.nspname, c.relname, r.prattrs IS NULL AND r.prqual IS NULL"
                " FROM pg_publication_rel r JOIN pg_class c ON c.oid = r.prrelid"
                " JOIN pg_namespace n ON n.oid = c.relnamespace WHERE r.prpubid = %s::oid"
                " UNION ALL"  # published by way of FOR ALL TABLES or FOR TABLES IN SCHEMA
                " SELECT n.nspname, c.relname, true FROM pg_publication p"
                " JOIN pg_namespace n ON p.puballtables OR EXISTS"
                " (SELECT FROM pg_publication_namespace s WHERE s.pnpubid = p.oid AND s.pnnspid = n.oid)"
                " JOIN pg_class c ON c.relnamespace = n.oid AND c.relkind IN ('r', 'p')"
                " WHERE p.oid = %s::oid AND n.nspname NOT IN ('pg_catalog', 'information_schema', 'pg_toast')",
                (row[0], row[0]),
            ).fetchall()
        return Publication(row[0], {TableName(schema, table): whole for schema, table, whole in tables}, row[1])

    def create_publication(self, name: str, tables: Sequence[TableName]) -> None:
        """Create the publication of whole rows. Raises PublicationUnfit with the SQL where the role may not."""
        statement = sql.SQL(
            "CREATE PUBLICATION {} FOR TABLE {}"
            " WITH (publish = 'insert, update, delete, truncate', publish_via_partition_root = true)"
        ).format(sql.Identifier(name), _table_list(tables))
        self._alter(statement)

    def add_to_publication(self, name: str, tables: Sequence[TableName]) -> None:
        """Add tables, then wait until nobody who wrote to them unpublished is left (see `wait_for_writers`)."""
        self._alter(sql.SQL("ALTER PUBLICATION {} ADD TABLE {}").format(sql.Identifier(name), _table_list(tables)))

    def _alter(self, statement: sql.Composed) -> None:
        try:
            with translated_errors():
                self._conn.execute(statement)
        except AccessDenied as error:
            text = statement.as_string(self._conn)
            raise PublicationUnfit(
                f"the publication has to be changed, and this role may not: {error}",
                remedy=f"Have the tables' owner run: {text};",
            ) from error

    def writers(self, tables: Sequence[int]) -> frozenset[str]:
        """The transactions that now hold a lock with which rows of these tables (OIDs) are written.

        A prepared transaction keeps its locks, so it is among them. Values only serve to be compared.
        """
        with translated_errors():
            rows = self._conn.execute(
                "SELECT DISTINCT l.virtualtransaction FROM pg_locks l"
                " WHERE l.locktype = 'relation' AND l.granted AND l.mode = 'RowExclusiveLock'"
                " AND l.database = (SELECT oid FROM pg_database WHERE datname = current_database())"
                " AND l.relation IN (SELECT t.relid FROM unnest(%s::oid[]) AS r, pg_partition_tree(r) AS t"
                " UNION SELECT unnest(%s::oid[]))",
                (list(tables), list(tables)),
            ).fetchall()
        return frozenset(row[0] for row in rows)

    def slot(self, name: str) -> Slot | None:
        """The slot as it stands, or None."""
        with translated_errors():
            row = self._conn.execute(
                "SELECT plugin, database, confirmed_flush_lsn::text, restart_lsn::text, wal_status, active_pid,"
                " CASE WHEN pg_is_in_recovery() THEN 0"
                " ELSE greatest(0, pg_current_wal_lsn() - restart_lsn) END::bigint, safe_wal_size"
                " FROM pg_replication_slots WHERE slot_name = %s",
                (name,),
            ).fetchone()
        if row is None:
            return None
        plugin, database, confirmed, restart, wal_status, pid, retained, safe = row
        return Slot(
            plugin or "",
            database or "",
            LSN.parse(confirmed or "0/0"),
            LSN.parse(restart or "0/0"),
            wal_status or "",
            pid,
            int(retained or 0),
            safe,
        )

    def create_slot(self, name: str) -> LSN:
        """Create the slot; returns the position from which it holds all changes. Waits for open transactions."""
        with translated_errors():
            row = self._conn.execute(
                "SELECT lsn::text FROM pg_create_logical_replication_slot(%s, 'pgoutput')", (name,)
            ).fetchone()
        assert row is not None
        return LSN.parse(row[0])

    def drop_slot(self, name: str) -> None:
        """Drop the slot if it is there."""
        with translated_errors():
            self._conn.execute(
                "SELECT pg_drop_replication_slot(slot_name) FROM pg_replication_slots WHERE slot_name = %s", (name,)
            )

    def drop_publication(self, name: str) -> None:
        """Drop the publication if it is there."""
        with translated_errors():
            self._conn.execute(sql.SQL("DROP PUBLICATION IF EXISTS {}").format(sql.Identifier(name)))

    # --- positions, marks, chunks ------------------------------------------------------------------------------------

    def insert_position(self) -> LSN:
        """The end of what has been written to the log."""
        with translated_errors():
            row = self._conn.execute("SELECT pg_current_wal_insert_lsn()::text").fetchone()
        assert row is not None
        return LSN.parse(row[0])

    def flush_position(self) -> LSN:
        """The end of what is safely written: what a reader can have. (Behind the insert position nothing may end.)"""
        with translated_errors():
            row = self._conn.execute("SELECT pg_current_wal_flush_lsn()::text").fetchone()
        assert row is not None
        return LSN.parse(row[0])

    def current_snapshot(self) -> Snapshot:
        """What a query would see now."""
        with translated_errors():
            row = self._conn.execute("SELECT pg_current_snapshot()::text").fetchone()
        assert row is not None
        return Snapshot.parse(row[0])

    def emit(self, prefix: str, content: bytes) -> None:
        """Write a transactional logical message; it comes back through the slot.

        It does not wait for a synchronous standby: a mark is of no use to one, and must not hang on one.
        """
        with translated_errors(), self._conn.transaction():
            self._conn.execute("SET LOCAL synchronous_commit = local")
            self._conn.execute("SELECT pg_logical_emit_message(true, %s, %s::text)", (prefix, content.decode()))

    def read_chunk(self, query: ChunkQuery, budget_bytes: int) -> ChunkRows:
        """Read rows in one REPEATABLE READ transaction; stops behind `budget_bytes`, but not before the first row."""
        rows: list[bytes] = []
        size, cut = 0, False
        statement = _chunk_statement(query)
        with translated_errors():
            self._conn.execute("BEGIN TRANSACTION ISOLATION LEVEL REPEATABLE READ READ ONLY")
            try:
                snapshot = self.current_snapshot()
                with suppress(_Enough), self._conn.cursor() as cursor, cursor.copy(statement) as copy:
                    for line in copy:
                        rows.append(bytes(line))
                        size += len(line)
                        if size >= budget_bytes and query.keys is None:
                            cut = True
                            raise _Enough  # psycopg cancels a COPY that is left by an exception, not by `break`
            finally:
                self._conn.execute("ROLLBACK")
        key_places = [query.columns.index(column) for column in query.key]
        last = copy_text.values(rows[-1]) if rows else []
        last_key = tuple((last[place] or b"").decode() for place in key_places) if rows else None
        return ChunkRows(
            snapshot, rows, last_key, size, not cut and (query.keys is not None or len(rows) < query.limit)
        )


def _table_list(tables: Sequence[TableName]) -> sql.Composed:
    """ONLY: tables that inherit from a mapped one may lack an identity, and then their owner's UPDATE would fail.

    Partitions are published with their root all the same.
    Source: https://www.postgresql.org/docs/current/sql-createpublication.html
    """
    names = [sql.Identifier(table.schema, table.name) for table in tables]
    return sql.SQL(", ").join(sql.SQL("ONLY {}").format(name) for name in names)


def _chunk_statement(query: ChunkQuery) -> sql.Composed:
    name = sql.Identifier(query.table.schema, query.table.name)
    table = sql.SQL("ONLY {}").format(name) if query.only else name
    key = sql.SQL(", ").join(map(_comparable, query.key))
    columns = sql.SQL(", ").join(sql.Identifier(column.name) for column in query.columns)
    if query.keys is not None:  # Postgres reads the key's JSON back as it reads it in a replica
        keys = sql.Literal(f"[{b','.join(sorted(query.keys)).decode()}]")
        names = sql.SQL(", ").join(sql.Identifier(column.name) for column in query.key)
        shape = sql.SQL(", ").join(
            sql.SQL("{} {}").format(sql.Identifier(column.name), sql.SQL(column.type.base_type)) for column in query.key
        )
        return sql.SQL(
            "COPY (SELECT {} FROM {} WHERE ({}) IN (SELECT {} FROM json_to_recordset({}) AS k ({}))) TO STDOUT"
        ).format(columns, table, key, names, keys, shape)
    where: sql.Composable = sql.SQL("")
    if query.after is not None:
        after = sql.SQL(", ").join(_literal(*pair) for pair in zip(query.key, query.after, strict=True))
        where = sql.SQL("WHERE ({}) > ({})").format(key, after)
    return sql.SQL("COPY (SELECT {} FROM {} {} ORDER BY {} LIMIT {}) TO STDOUT").format(
        columns, table, where, key, sql.Literal(query.limit)
    )


def _comparable(column: Column) -> sql.Composable:
    """A key column in its base type: a domain over an enum has no operators of its own."""
    name = sql.Identifier(column.name)
    if column.type.pg_type == column.type.base_type:
        return name
    return sql.SQL("{}::{}").format(name, sql.SQL(column.type.base_type))


def _literal(column: Column, text: str) -> sql.Composed:
    """A key value in its column's type; the type's name is the catalog's own, and already quoted."""
    return sql.SQL("{}::{}").format(sql.Literal(text), sql.SQL(column.type.base_type))
