"""The SQL after which a table that cannot be mapped can be."""

from __future__ import annotations

from collections.abc import Iterable

from cdc.catalog import Table
from cdc.init.facts import KeyedBy, TableFacts, listable
from cdc.init.sql_text import column_list, identifier, table_name


def cause(facts: TableFacts, table: Table) -> str:
    """What about a table makes it unfit, where that is plain; else empty."""
    if facts.deferrable_key is not None:
        return "its primary key is deferrable, and so is no identity"
    if not table.primary_key:
        return "it has no primary key"
    if table.identity == "n" or table.leaves_without_identity:
        return "REPLICA IDENTITY NOTHING"
    return ""


def mending(facts: TableFacts, table: Table) -> str | None:
    """Statements for the table's owner, those that change least; None where no statement alone would do."""
    if table.primary_key:
        return _identity_by_key(facts, table) if _can_be_listed(table.primary_key, table) else None
    usable = [index for index in facts.unique_indexes if _can_be_listed(index.columns, table)]
    if usable and facts.kind != "p" and facts.deferrable_key is None:
        return _identity_by_index(facts, table, usable[0])
    made = _primary_key(facts, table, usable)
    if made is None or table.identity not in ("n", "i"):
        return made
    return f"{made}\nALTER TABLE {table_name(facts.name)} REPLICA IDENTITY DEFAULT;"


def _identity_by_key(facts: TableFacts, table: Table) -> str:
    lacking = table.leaves_without_identity or (facts.name,)
    return "\n".join(f"ALTER TABLE {table_name(name)} REPLICA IDENTITY DEFAULT;" for name in lacking)


def _identity_by_index(facts: TableFacts, table: Table, index: KeyedBy) -> str:
    name = table_name(facts.name)
    nullable = {column.name for column in table.columns if not column.not_null}
    steps = [f"ALTER COLUMN {identifier(column)} SET NOT NULL" for column in index.columns if column in nullable]
    statements = [f"ALTER TABLE {name} {', '.join(steps)};"] if steps else []
    if table.identity != "f":  # FULL holds every column already
        statements.append(f"ALTER TABLE {name} REPLICA IDENTITY USING INDEX {identifier(index.name)};")
    return "\n".join(statements)


def _primary_key(facts: TableFacts, table: Table, indexes: list[KeyedBy]) -> str | None:
    """A primary key of columns that are there, or else of a new one."""
    name = table_name(facts.name)
    deferrable = facts.deferrable_key
    if deferrable is not None:
        if not _can_be_listed(deferrable.columns, table):
            return None
        constraint, key = identifier(deferrable.name), column_list(deferrable.columns)
        return f"ALTER TABLE {name} DROP CONSTRAINT {constraint},\n    ADD CONSTRAINT {constraint} PRIMARY KEY {key};"
    if indexes:
        return f"ALTER TABLE {name} ADD PRIMARY KEY {column_list(indexes[0].columns)};"
    new = _unused("id", table)
    rewrites = f"-- Rewrites {name} under an exclusive lock.\nALTER TABLE {name}"
    if facts.kind != "p":
        return f"{rewrites}\n    ADD COLUMN {new} bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY;"
    by = [column for column in facts.partition_columns if column is not None]
    if len(by) < len(facts.partition_columns) or not _can_be_listed(by, table):
        return None  # the key of a partitioned table must hold what it is partitioned by
    # Partitions share an identity column since Postgres 17 only, and a sequence in all versions.
    return f"{rewrites}\n    ADD COLUMN {new} bigserial,\n    ADD PRIMARY KEY {column_list([new, *by])};"


def _can_be_listed(columns: Iterable[str], table: Table) -> bool:
    return set(columns) <= set(listable(table))


def _unused(name: str, table: Table) -> str:
    """`name`, or something like it that no column is called."""
    taken = {column.name for column in table.columns}
    free, number = name, 2
    while free in taken:
        free, number = f"{name}_{number}", number + 1
    return free
