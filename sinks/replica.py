"""Replica tables: their shape as the schema document asks for it, their owner, and what is done about a difference.

Types are taken from the document, but only as far as the target's own catalog knows them; names go through
`identifier`, and nothing is ever taken from entries.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from importlib import resources
from typing import Any, LiteralString, NamedTuple

from sinks.children.child import Child
from sinks.postgres import Database, Statement, compose, identifier, listed, literal, part, readable, verbatim
from transforms.names import TableName
from transforms.schema import SchemaDocument

_COLUMNS = resources.files("sinks").joinpath("replica_columns.sql").read_bytes()
_KEY = resources.files("sinks").joinpath("replica_key.sql").read_bytes()
_TYPES = (
    b"SELECT to_regtype(name)::oid::bigint FROM unnest(%s::text[]) WITH ORDINALITY AS t (name, place) ORDER BY place"
)
_UNLOGGED = b"SELECT relpersistence = 'u' FROM pg_class WHERE oid = to_regclass(%s)"
_KEY_NAME = b"SELECT conname FROM pg_constraint WHERE conrelid = to_regclass(%s) AND contype = 'p'"
_FILLED_BY_HAND: Mapping[str, LiteralString] = {
    "identity": "ALTER COLUMN {} DROP IDENTITY",
    "stored": "ALTER COLUMN {} DROP EXPRESSION",
    "virtual": "DROP COLUMN {}",  # which the worker adds again, as a plain one
}
_BUILT_IN = 16_384
"""Types below this OID are Postgres' own."""


@dataclass(slots=True)
class Replica:
    """A replica table that fits, as the statements that write to it need it."""

    label: str
    table: TableName
    document: SchemaDocument
    types: Mapping[str, str]
    """Column -> type, as the target names it."""
    equals: Mapping[str, str]
    """Column of the key -> the operator by which the key compares, `OPERATOR(pg_catalog.=)`."""
    filled: bool = False
    """A snapshot run has ended since the table was registered."""
    wants_snapshot: bool = False
    asked_run: str | None = None
    """The snapshot run that the reader was asked for; None: none was, or one has ended since."""
    run: str | None = None
    """The snapshot run in hand."""
    unseen_table: str | None = None
    """In schema cdc: the keys that the table had when that run began, less those seen since; None: it had none."""
    children: tuple[Child, ...] = ()

    @property
    def all_tables(self) -> list[str]:
        """The table and those of its children, as SQL names them."""
        return [str(table) for table in (self.table, *(child.table for child in self.children))]

    def fields(self, rev: int) -> tuple[str, ...]:
        """The fields of a revision that the table has a column for."""
        own = self.types.keys() & set(self.document.names)
        return tuple(name for name in self.document.revisions[rev - 1] if name in own)


class Misfit(NamedTuple):
    """What does not fit, and the SQL that mends it."""

    what: str
    mend: str
    column: str | None = None
    """The column whose type it is that does not fit: a rebuilt table has another one."""


@dataclass(slots=True)
class Examination:
    """What a look at a replica table has brought."""

    label: str
    table: TableName
    document: SchemaDocument
    statements: list[Statement] = field(default_factory=list)
    """DDL that makes the table fit, without touching what is there."""
    misfits: list[Misfit] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)
    owner: tuple[str, str, str] | None = None
    """Pipeline, sink and event that the table is registered to."""
    exists: bool = False
    has_rows: bool = False
    retypes: list[Statement] = field(default_factory=list)
    """DDL that gives an empty table the types of the event, where they are others."""


def examine(
    database: Database, label: str, table: TableName, document: SchemaDocument, *, registered: bool = True
) -> Examination:
    """Look at a replica table, in the transaction in hand; nothing is changed.

    `registered`: schema cdc exists, so that the table's owner can be looked up.
    """
    found = Examination(label, table, document)
    types = _wanted_types(database, document, found)
    columns = {row[0]: row for row in database.rows(_COLUMNS, [str(table)])}
    if registered:
        owner = database.rows(b"SELECT pipeline, sink, event FROM cdc.replica WHERE table_name = %s", [str(table)])
        found.owner = owner[0] if owner else None
    outside = [name for name in document.key if name not in document.names]
    if outside:
        found.misfits.append(
            Misfit(f"the event's key ({', '.join(outside)}) is not among its fields", "-- list it at the source")
        )
    if not columns:
        found.statements += _create(table, document, types, schema_exists=_schema_exists(database, table))
        return found
    found.exists = True
    kind = database.row(b"SELECT relkind::text FROM pg_class WHERE oid = to_regclass(%s)", [str(table)])[0]
    if kind not in ("r", "p"):
        found.misfits.append(Misfit(f"{table} is not a table", "-- map the event to another name"))
        return found
    if database.row(_UNLOGGED, [str(table)])[0]:
        mend = compose(
            "ALTER TABLE {} SET LOGGED; UPDATE cdc.replica SET wants_snapshot = true WHERE table_name = {}",
            identifier(table),
            literal(str(table)),
        )
        found.misfits.append(Misfit("it is unlogged, so that a crash empties it", readable(mend)))
    found.has_rows = bool(database.row(compose("SELECT EXISTS (SELECT FROM {})", identifier(table)))[0])
    for name in document.names:
        if name not in columns:
            add = compose(
                "ALTER TABLE {} ADD COLUMN {} {}", identifier(table), identifier(name), verbatim(types[name][0] + "\n")
            )
            found.statements.append(add)
        else:
            _check_type(found, columns[name], *types[name])
    for column in document.apart:
        if column.name in columns:
            drop = compose("ALTER TABLE {} DROP COLUMN {}", identifier(table), identifier(column.name))
            found.warnings.append(
                f"column {column.name} stays as it is, since the embed has a table of its own: {readable(drop)};"
            )
    _check_rest(database, found, columns)
    return found


def load(database: Database, examination: Examination) -> Replica:
    """The table as it is now, in the transaction that has made it fit and registered it."""
    table = examination.table
    types, equals = columns_of(database, table), key_of(database, table)
    state = database.row(
        b"SELECT filled, wants_snapshot, asked_run, run, unseen_table FROM cdc.replica WHERE table_name = %s",
        [str(table)],
    )
    return Replica(examination.label, table, examination.document, types, equals, *state)


def columns_of(database: Database, table: TableName) -> dict[str, str]:
    """Column -> type, as the target names it."""
    return {row[0]: row[1] for row in database.rows(_COLUMNS, [str(table)])}


def key_of(database: Database, table: TableName) -> dict[str, str]:
    """Column of the primary key -> the operator by which it compares, `OPERATOR(pg_catalog.=)`."""
    return {row[0]: f"OPERATOR({row[1]})" for row in database.rows(_KEY, [str(table)])}


def _wanted_types(database: Database, document: SchemaDocument, found: Examination) -> dict[str, tuple[str, int]]:
    """Column -> the type it shall have in the target, and that type's OID."""
    oids = [row[0] for row in database.rows(_TYPES, [[column.base_type for column in document.columns]])]
    types: dict[str, tuple[str, int]] = {}
    unknown: dict[str, list[str]] = {}
    for column, oid in zip(document.columns, oids, strict=True):
        if oid is not None:
            types[column.name] = (column.base_type, oid)
        else:
            types[column.name] = ("text[]", 1009) if column.base_type.endswith("[]") else ("text", 25)
            unknown.setdefault(column.base_type, []).append(column.name)
    for type_, [first, *others] in unknown.items():
        which = f"columns {', '.join([first, *others])} become" if others else f"column {first} becomes"
        found.warnings.append(
            f"{which} {types[first][0]}: the target has no type {type_}"
            " (made there before the table is, it would be used)"
        )
    return types


def _schema_exists(database: Database, table: TableName) -> bool:
    return bool(database.row(b"SELECT EXISTS (SELECT FROM pg_namespace WHERE nspname = %s)", [table.schema])[0])


def _create(
    table: TableName, document: SchemaDocument, types: Mapping[str, tuple[str, int]], *, schema_exists: bool
) -> list[Statement]:
    lines = [part("{} {}", identifier(name), verbatim(types[name][0])) for name in document.names]
    key = listed([identifier(name) for name in document.key])
    create = compose(
        "CREATE TABLE {} (\n    {}\n  , PRIMARY KEY ({})\n)",
        identifier(table),
        listed(lines, "\n  , "),  # a line each: a comment in a type's name ends with its line
        key,
    )
    return ([] if schema_exists else [compose("CREATE SCHEMA {}", identifier(table.schema))]) + [create]


def _check_type(found: Examination, column: tuple[Any, ...], wanted: str, wanted_oid: int) -> None:
    name, actual, actual_oid, modifier = column[:4]
    if actual_oid == wanted_oid and (actual == wanted or modifier == -1):
        return
    parts = {"table": identifier(found.table), "column": identifier(name), "type": verbatim(wanted)}
    found.retypes.append(compose("ALTER TABLE {table} ALTER COLUMN {column} TYPE {type} USING NULL::{type}", **parts))
    if actual in ("text", "text[]") and wanted_oid >= _BUILT_IN:
        found.warnings.append(f"column {name} is {actual}, though the target knows the type {wanted}")
        return
    mend = compose("ALTER TABLE {table} ALTER COLUMN {column} TYPE {type} USING {column}::{type}", **parts)
    found.misfits.append(Misfit(f"column {name} is {actual}, its event has {wanted}", readable(mend), name))


def _check_rest(database: Database, found: Examination, columns: Mapping[str, tuple[Any, ...]]) -> None:
    """The key, and columns that are not the event's."""
    table, document = found.table, found.document
    key = {row[0] for row in database.rows(_KEY, [str(table)])}
    if key != set(document.key):
        what = f"its primary key is ({', '.join(sorted(key))})" if key else "it has no primary key"
        dropped = [part("DROP CONSTRAINT {}", identifier(row[0])) for row in database.rows(_KEY_NAME, [str(table)])]
        added = part("ADD PRIMARY KEY ({})", listed([identifier(name) for name in document.key]))
        mend = compose("ALTER TABLE {} {}", identifier(table), listed([*dropped, added]))
        found.misfits.append(Misfit(f"{what}, the event's key is ({', '.join(document.key)})", readable(mend)))
    for name, _, _, _, not_null, has_default, generated in columns.values():
        column = identifier(name)
        if name in document.names and generated:
            mend = compose("ALTER TABLE {} {}", identifier(table), part(_FILLED_BY_HAND[generated], column))
            found.misfits.append(Misfit(f"column {name} is generated", readable(mend)))
        elif name not in document.names and not_null and not has_default:
            mend = compose("ALTER TABLE {} ALTER COLUMN {} DROP NOT NULL", identifier(table), column)
            found.misfits.append(Misfit(f"column {name} is NOT NULL and no field of the event", readable(mend)))


def unseen_table_name(table: TableName, digest: str) -> str:
    """The name of a side table: telling, and never longer than an identifier may be."""
    return f"unseen_{re.sub('[^a-z0-9_]', '', table.name.lower())[:30]}_{digest}"
