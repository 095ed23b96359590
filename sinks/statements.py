"""The statements that write to a replica table; the target's JSON functions read keys and states as they came."""

from __future__ import annotations

from collections.abc import Sequence

from sinks.compaction import Change
from sinks.postgres import Database, JsonText, Part, Statement, compose, identifier, listed, part, verbatim
from sinks.replica import Replica


def delete(database: Database, replica: Replica, changes: Sequence[Change]) -> None:
    """Delete rows by their keys; that some are not there is no mistake."""
    statement = compose(
        "DELETE FROM {table} AS t USING json_populate_recordset(NULL::{table}, %s::json) AS k WHERE {same}",
        table=identifier(replica.table),
        same=same_key(replica),
    )
    database.execute(statement, [array_of([change.key for change in changes])])


def upsert(database: Database, replica: Replica, changes: Sequence[Change]) -> None:
    """Write whole rows, all of one group."""
    first = changes[0]
    fields = replica.fields(first.rev)
    statement: Statement = compose(
        "INSERT INTO {table} ({columns}) SELECT {values} FROM json_populate_recordset(NULL::{table}, %s::json) AS k"
        " {on_conflict}",
        table=identifier(replica.table),
        columns=listed([identifier(name) for name in fields]),
        values=listed([_value(replica, name, first.quoted) for name in fields]),
        on_conflict=on_conflict(replica, fields),
    )
    database.execute(statement, [array_of([change.state or b"" for change in changes])])


def update(database: Database, replica: Replica, changes: Sequence[Change]) -> list[Change]:
    """Write the fields that partial upserts, all of one group, do have; returns those whose rows do not exist."""
    first, key = changes[0], replica.document.key
    given = [name for name in replica.fields(first.rev) if name not in first.partial]
    written = [name for name in given if name not in key] or list(key)
    states = array_of([change.state or b"" for change in changes])
    table, same = identifier(replica.table), same_key(replica)
    assignments = [part("{} = {}", identifier(name), _value(replica, name, first.quoted)) for name in written]
    statement = compose(
        "UPDATE {table} AS t SET {assignments} FROM json_populate_recordset(NULL::{table}, %s::json) AS k WHERE {same}",
        table=table,
        assignments=listed(assignments),
        same=same,
    )
    if database.execute(statement, [states]) == len(changes):
        return []
    absent = compose(
        "SELECT k.place FROM ROWS FROM (json_populate_recordset(NULL::{table}, %s::json)) WITH ORDINALITY"
        " AS k ({columns}, place) WHERE NOT EXISTS (SELECT FROM {table} AS t WHERE {same})",
        table=table,
        columns=listed([identifier(name) for name in replica.types]),
        same=same,
    )
    return [changes[place - 1] for (place,) in database.rows(absent, [states])]


def on_conflict(replica: Replica, fields: Sequence[str]) -> Part:
    """The clause that turns an insert of these fields into an upsert."""
    key = replica.document.key
    updates = [part("{name} = excluded.{name}", name=identifier(name)) for name in fields if name not in key]
    return part(
        "ON CONFLICT ({}) DO {}",
        listed([identifier(name) for name in key]),
        part("UPDATE SET {}", listed(updates)) if updates else part("NOTHING"),
    )


def same_key(replica: Replica) -> Part:
    """The condition that row `t` of the table has the key of `k`."""
    return listed(
        [
            part("t.{name} {equals} k.{name}", name=identifier(name), equals=verbatim(operator))
            for name, operator in replica.equals.items()
        ],
        " AND ",
    )


def _value(replica: Replica, name: str, quoted: Sequence[str]) -> Part:
    """A field of the parsed state. A quoted one is a JSON string that holds the JSON text, to be read as such."""
    if name in quoted and replica.types[name] in ("json", "jsonb"):
        return part("(k.{} #>> '{{}}')::{}", identifier(name), verbatim(replica.types[name]))
    return part("k.{}", identifier(name))


def array_of(items: Sequence[bytes]) -> JsonText:
    """A JSON array of JSON texts."""
    return JsonText(b"[%b]" % b",".join(items))
