"""The SQL after which a table that cannot be mapped can be."""

from __future__ import annotations

from cdc.catalog import Table
from cdc.init.facts import TableFacts
from cdc.init.sql_text import column_list, identifier, table_name
from transforms.names import IDENTIFIER_MAX_BYTES


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
    name = table_name(facts.name)
    default = f"ALTER TABLE {name} REPLICA IDENTITY DEFAULT;"
    if table.primary_key:
        if not _in_log(table.primary_key, table):
            return None
        return "\n".join(
            f"ALTER TABLE {table_name(lacking)} REPLICA IDENTITY DEFAULT;"
            for lacking in table.leaves_without_identity or (facts.name,)
        )
    new_key = _new_key(facts, table)
    if new_key is None:
        return None
    # A primary key is the identity by default only.
    return f"{new_key}\n{default}" if table.identity in ("n", "i") and "IDENTITY USING" not in new_key else new_key


def _new_key(facts: TableFacts, table: Table) -> str | None:
    name = table_name(facts.name)
    if facts.deferrable_key is not None and _in_log(facts.deferrable_key.columns, table):
        constraint, columns = identifier(facts.deferrable_key.name), column_list(facts.deferrable_key.columns)
        return (
            f"ALTER TABLE {name} DROP CONSTRAINT {constraint},\n    ADD CONSTRAINT {constraint} PRIMARY KEY {columns};"
        )
    for index in facts.unique_indexes:
        if not _in_log(index.columns, table):
            continue
        if facts.kind == "p":  # an identity by index would have to be given to each partition, with its own index
            return f"ALTER TABLE {name} ADD PRIMARY KEY {column_list(index.columns)};"
        not_null = {column.name for column in table.columns if column.not_null}
        nullable = [
            f"ALTER COLUMN {identifier(column)} SET NOT NULL" for column in index.columns if column not in not_null
        ]
        first = f"ALTER TABLE {name} {', '.join(nullable)};\n" if nullable else ""
        return f"{first}ALTER TABLE {name} REPLICA IDENTITY USING INDEX {identifier(index.name)};"
    return _added_key(facts, table)


def _added_key(facts: TableFacts, table: Table) -> str | None:
    """A key column of its own. Adding it rewrites the table under an exclusive lock, so that is said with it."""
    name, column = table_name(facts.name), _unused("id", table)
    note = f"-- Rewrites {name} under an exclusive lock."
    if facts.deferrable_key is not None:
        return None
    if facts.kind != "p":
        added = f"ADD COLUMN {column} bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY"
        return f"{note}\nALTER TABLE {name}\n    {added};"
    by = [column for column in facts.partition_columns if column is not None]
    if len(by) < len(facts.partition_columns) or not _in_log(by, table):
        return None  # the key of a partitioned table must hold what it is partitioned by
    # Partitions share an identity column since Postgres 17 only, and a sequence in all versions.
    key = column_list([column, *by])
    return f"{note}\nALTER TABLE {name}\n    ADD COLUMN {column} bigserial,\n    ADD PRIMARY KEY {key};"


def _in_log(columns: tuple[str, ...] | list[str], table: Table) -> bool:
    return set(columns) <= {column.name for column in table.columns if not column.generated}


def _unused(name: str, table: Table) -> str:
    taken = {column.name for column in table.columns}
    free = name
    while free in taken:
        free = f"row_{free}"
    assert len(free) <= IDENTIFIER_MAX_BYTES
    return free
