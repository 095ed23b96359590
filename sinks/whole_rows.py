"""What is done to rows of a replica and to those of its children, which go with them."""

from __future__ import annotations

from collections.abc import Collection, Sequence

from sinks.bulk import upsert_many
from sinks.compaction import Change
from sinks.postgres import Database, compose, identifier
from sinks.replica import Replica
from sinks.statements import array_of, delete, of_keys, update


def write(database: Database, replica: Replica, changes: Sequence[Change]) -> None:
    """Write whole rows, all of one group."""
    upsert_many(database, replica, changes)
    _replace_children(database, replica, changes)


def amend(database: Database, replica: Replica, changes: Sequence[Change]) -> list[Change]:
    """Write what partial upserts, all of one group, do have; returns those whose rows do not exist."""
    missing = update(database, replica, changes)
    if replica.children:
        absent = {change.key for change in missing}
        _replace_children(database, replica, [change for change in changes if change.key not in absent])
    return missing


def remove(database: Database, replica: Replica, changes: Sequence[Change]) -> None:
    """Delete rows by their keys; that some are not there is no mistake."""
    _remove_children(database, replica, changes, [child.shape.field for child in replica.children])
    delete(database, replica, changes)


def remove_all(database: Database, replica: Replica) -> None:
    """Delete every row."""
    for table in [*(child.table for child in replica.children), replica.table]:
        database.execute(compose("DELETE FROM {}", identifier(table)))


def truncate(database: Database, replica: Replica) -> None:
    """Delete every row of tables that nobody reads."""
    for table in [*(child.table for child in replica.children), replica.table]:
        database.execute(compose("TRUNCATE {}", identifier(table)))


def _replace_children(database: Database, replica: Replica, changes: Sequence[Change]) -> None:
    """Have the rows of children be those that the states, all of one group, hold. Absent embeds stay as they are."""
    if not replica.children or not changes:
        return
    first = changes[0]
    given = set(replica.document.revisions[first.rev - 1]).difference(first.partial)
    _remove_children(database, replica, changes, given)
    states = array_of([change.state or b"" for change in changes])
    for child in replica.children:
        if child.shape.field in given:
            statement = child.insert_quoted if child.shape.field in first.quoted else child.insert
            database.execute(statement, [states])


def _remove_children(database: Database, replica: Replica, changes: Sequence[Change], fields: Collection[str]) -> None:
    for child in replica.children:
        if child.shape.field in fields:
            statement, keys = of_keys("DELETE FROM {child} AS t WHERE {keys}", replica, changes, child)
            database.execute(statement, [keys])
