"""Tables and types as the source's catalog has them. All functions raise SourceError."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from importlib import resources

from psycopg.rows import dict_row

from cdc.announced import Attribute
from cdc.catalog import Column, Table
from cdc.source.connection import Source, translated_errors
from transforms.column_type import ColumnType
from transforms.names import TableName

_TABLES = resources.files("cdc.source").joinpath("tables.sql").read_text()
_TYPE_PARTS = resources.files("cdc.source").joinpath("type_parts.sql").read_text()
_COLUMN_TYPES = resources.files("cdc.source").joinpath("column_types.sql").read_text()
_SHAPES = """
    SELECT oid::bigint,
           (SELECT string_agg(relid::oid || ':' || pg_relation_filenode(relid), ' ' ORDER BY relid)
            FROM (SELECT relid FROM pg_partition_tree(oid) UNION SELECT oid) AS member),
           (SELECT jsonb_object_agg(attname, format_type(atttypid, atttypmod)) FROM pg_attribute
            WHERE attrelid = oid AND attnum > 0 AND NOT attisdropped)
    FROM unnest(%(oids)s::oid[]) AS asked (oid)
"""
_FIRST_OWN_OID = 16_384
"""What is made after the cluster was has one from here on. Source: FirstNormalObjectId, src/include/access/transam.h"""
_ATTRIBUTES = """
    SELECT attname, attnum, attisdropped, attgenerated <> '' FROM pg_attribute
    WHERE attrelid = %(oid)s::oid AND attnum > 0 ORDER BY attnum
"""
_ANCESTORS = """
    SELECT relid::oid::bigint FROM pg_partition_ancestors(%(oid)s::oid::regclass) WHERE relid <> %(oid)s::oid
"""


@dataclass(frozen=True, slots=True)
class TableShape:
    """What must not change while a chunk is read."""

    storage: str
    """Its files: another one after TRUNCATE and after every rewrite, which an older snapshot finds empty."""
    types: dict[str, str]
    """Column -> type."""


def describe_tables(source: Source, names: Sequence[TableName]) -> dict[TableName, Table]:
    """What the catalog says of tables; those that are not there are left out."""
    with translated_errors(), source.connection.cursor(row_factory=dict_row) as cursor:
        rows = cursor.execute(_TABLES.encode(), _by_name(names)).fetchall()
    pairs = dict.fromkeys((column["type"], column["modifier"]) for row in rows for column in row["columns"] or [])
    types = dict(zip(pairs, column_types(source, list(pairs)), strict=True))
    tables = {}
    for row in rows:
        name = TableName(row["schema"], row["name"])
        tables[name] = Table(
            oid=row["oid"],
            name=name,
            kind=row["kind"],
            persistence=row["persistence"],
            columns=tuple(
                Column(
                    column["name"],
                    types[column["type"], column["modifier"]],
                    column["not_null"],
                    column["generated"],
                    column["number"],
                )
                for column in row["columns"] or []
            ),
            primary_key=tuple(row["primary_key"]),
            unique_keys=tuple(frozenset(key) for key in row["unique_keys"]),
            identity=row["identity"],
            identity_columns=frozenset(row["identity_columns"]),
            leaves_without_identity=tuple(TableName(*leaf) for leaf in row["leaves_without_identity"]),
            leaves_without_log=tuple(TableName(*leaf) for leaf in row["leaves_without_log"]),
            ancestors=tuple(TableName(*ancestor) for ancestor in row["ancestors"]),
            leaf_identities={
                TableName(schema, leaf): frozenset(columns) for schema, leaf, columns in row["leaf_identities"]
            },
            estimated_rows=row["estimated_rows"] or 0,
            without_old_rows=tuple(TableName(*one) for one in row["without_old_rows"]),
            children=tuple(TableName(*child) for child in row["children"]),
        )
    return tables


def column_types(source: Source, pairs: Sequence[tuple[int, int]]) -> list[ColumnType]:
    """Types by OID and modifier. One that is gone from today's catalog is taken as text."""
    parameters = {"types": [oid for oid, _ in pairs], "modifiers": [modifier for _, modifier in pairs]}
    return [
        ColumnType(pg_type, base_type, base_oid, element_oid, delimiter.encode(), *others)
        for pg_type, base_type, base_oid, element_oid, delimiter, *others in source.query(_COLUMN_TYPES, parameters)
    ]


def type_parts(source: Source, types: Sequence[int]) -> dict[int, dict[str, str]]:
    """What values of these types (OIDs) are written with besides, by a name of each part; built-in types have none."""
    own = sorted({oid for oid in types if oid >= _FIRST_OWN_OID})
    found: dict[int, dict[str, str]] = {}
    for type_, part, text in source.query(_TYPE_PARTS, {"types": own}) if own else []:
        found.setdefault(type_, {})[part] = text or ""
    return found


def attributes(source: Source, oid: int) -> list[Attribute]:
    """All columns that a table has or had; none when there is no such table."""
    return [Attribute(*row) for row in source.query(_ATTRIBUTES, {"oid": oid})]


def partition_ancestors(source: Source, oid: int) -> list[int]:
    """The partitioned tables that a table is a partition of, at any depth, by OID. Takes no lock."""
    return [ancestor for (ancestor,) in source.query(_ANCESTORS, {"oid": oid})]


def table_shapes(source: Source, oids: Collection[int]) -> dict[int, TableShape]:
    """What the catalog says now of the tables with these OIDs."""
    rows = source.query(_SHAPES, {"oids": list(oids)})
    return {oid: TableShape(storage or "", types or {}) for oid, storage, types in rows}


def _by_name(names: Sequence[TableName]) -> dict[str, list[str]]:
    return {"schemas": [name.schema for name in names], "names": [name.name for name in names]}
