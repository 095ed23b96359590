"""The statements that write to a replica table; the target's JSON functions read keys and states as they came."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from functools import lru_cache
from typing import LiteralString

from sinks.children.child import Child
from sinks.compaction import Change
from sinks.errors import DataRefused, Refusal
from sinks.postgres import Database, JsonText, Part, Statement, compose, identifier, listed, part, verbatim
from sinks.replica import Replica
from transforms.names import TableName

NOT_A_ROW = Refusal("22032", "InvalidJsonText")
"""What is no JSON object with a key, taken by itself."""

_ARRAYS: Mapping[str, LiteralString] = {"smallint": "int2[]", "integer": "int4[]", "bigint": "int8[]"}


def delete(database: Database, replica: Replica, changes: Sequence[Change]) -> None:
    """Delete rows by their keys; that some are not there is no mistake."""
    statement = compose(
        "DELETE FROM {table} AS t USING json_populate_recordset(NULL::{table}, %s::json) AS k WHERE {same}",
        table=identifier(replica.table),
        same=same_key(replica),
    )
    keys = array_of([change.key for change in changes])
    if database.execute(statement, [keys]) != len(changes):
        _require_a_row_each(database, replica, keys, len(changes))


def upsert(database: Database, replica: Replica, changes: Sequence[Change]) -> None:
    """Write whole rows, all of one group."""
    first = changes[0]
    fields = replica.fields(first.rev)
    statement = _upsert_statement(replica.table, replica.document.key, fields, tuple(_texts(replica, first).items()))
    states = array_of([change.state or b"" for change in changes])
    if database.execute(statement, [states]) != len(changes):
        _require_a_row_each(database, replica, states, len(changes))


@lru_cache(maxsize=256)
def _upsert_statement(
    table: TableName, key: tuple[str, ...], fields: tuple[str, ...], texts: tuple[tuple[str, str], ...]
) -> Statement:
    """Putting a statement together takes as long as applying a few rows with it."""
    return compose(
        "INSERT INTO {table} ({columns}) SELECT {values} FROM json_populate_recordset(NULL::{table}, %s::json) AS k"
        " {on_conflict}",
        table=identifier(table),
        columns=listed([identifier(name) for name in fields]),
        values=listed([_value(name, dict(texts)) for name in fields]),
        on_conflict=on_conflict(key, fields),
    )


def update(database: Database, replica: Replica, changes: Sequence[Change]) -> list[Change]:
    """Write the fields that partial upserts, all of one group, do have; returns those whose rows do not exist."""
    first, key = changes[0], replica.document.key
    given = [name for name in replica.fields(first.rev) if name not in first.partial]
    written = [name for name in given if name not in key] or list(key)
    states = array_of([change.state or b"" for change in changes])
    table, same = identifier(replica.table), same_key(replica)
    texts = _texts(replica, first)
    assignments = [part("{} = {}", identifier(name), _value(name, texts)) for name in written]
    statement = compose(
        "UPDATE {table} AS t SET {assignments} FROM json_populate_recordset(NULL::{table}, %s::json) AS k WHERE {same}",
        table=table,
        assignments=listed(assignments),
        same=same,
    )
    if database.execute(statement, [states]) == len(changes):
        return []
    _require_a_row_each(database, replica, states, len(changes))
    return missing_rows(database, replica, changes)


def _require_a_row_each(database: Database, replica: Replica, rows: JsonText, count: int) -> None:
    """See that a list of `count` JSON texts is as many rows with a key. Raises DataRefused.

    Texts that are no JSON by themselves may be some together: one that is two rows, two with a third between them.
    """
    statement = compose(
        "SELECT count(*), count(*) FILTER (WHERE {keys}) FROM json_populate_recordset(NULL::{table}, %s::json) AS k",
        keys=listed([part("k.{} IS NOT NULL", identifier(name)) for name in replica.document.key], " AND "),
        table=identifier(replica.table),
    )
    if database.row(statement, [rows]) != (count, count):
        raise DataRefused(NOT_A_ROW)


def on_conflict(key: Sequence[str], fields: Sequence[str]) -> Part:
    """The clause that turns an insert of these fields into an upsert."""
    updates = [part("{name} = excluded.{name}", name=identifier(name)) for name in fields if name not in key]
    return part(
        "ON CONFLICT ({}) DO {}",
        listed([identifier(name) for name in key]),
        part("UPDATE SET {}", listed(updates)) if updates else part("NOTHING"),
    )


def of_keys(
    template: LiteralString, replica: Replica, changes: Sequence[Change], child: Child | None = None, **parts: Part
) -> tuple[Statement, str | JsonText]:
    """A statement, and its parameter, about the rows `t` that have the `{keys}` of changes. `{table}`: the replica.

    `child`: the rows are of this table, `{child}`, and have the changes' keys as their parents'.
    """
    if child is not None:
        parts["child"] = identifier(child.table)
    table, [first, *others] = identifier(replica.table), replica.document.key
    parts["table"] = table
    if replica.types[first] in _ARRAYS and not others:  # which is read, and looked for, much faster than JSON
        start = len(json.dumps(first, ensure_ascii=False).encode()) + 2  # {"id":42}
        try:
            numbers = "{" + b",".join([change.key[start:-1] for change in changes]).decode() + "}"
        except UnicodeDecodeError:
            raise DataRefused(NOT_A_ROW) from None
        statement = compose(
            template.replace("{keys}", "t.{_name} = ANY (%s::pg_catalog.{_array})"),
            _name=identifier(child.shape.parents[first] if child else first),
            _array=verbatim(_ARRAYS[replica.types[first]]),
            **parts,
        )
        return statement, numbers
    statement = compose(
        template.replace(
            "{keys}", "EXISTS (SELECT FROM json_populate_recordset(NULL::{table}, %s::json) AS k WHERE {_same})"
        ),
        _same=same_parent(child) if child else same_key(replica),
        **parts,
    )
    return statement, array_of([change.key for change in changes])


def missing_rows(database: Database, replica: Replica, changes: Sequence[Change]) -> list[Change]:
    """The changes whose keys no row has."""
    absent = compose(
        "SELECT k.place FROM ROWS FROM (json_populate_recordset(NULL::{table}, %s::json)) WITH ORDINALITY"
        " AS k ({columns}, place) WHERE NOT EXISTS (SELECT FROM {table} AS t WHERE {same}) ORDER BY k.place",
        table=identifier(replica.table),
        columns=listed([identifier(name) for name in replica.types]),
        same=same_key(replica),
    )
    rows = database.rows(absent, [array_of([change.key for change in changes])])
    return [changes[place - 1] for (place,) in rows]


def same_key(replica: Replica) -> Part:
    """The condition that row `t` of the table has the key of `k`."""
    return listed(
        [
            part("t.{name} {equals} k.{name}", name=identifier(name), equals=verbatim(operator))
            for name, operator in replica.equals.items()
        ],
        " AND ",
    )


def same_parent(child: Child) -> Part:
    """The condition that row `t` of a child table belongs to the parent with the key of `k`."""
    return listed(
        [
            part("t.{} {} k.{}", identifier(child.shape.parents[name]), verbatim(operator), identifier(name))
            for name, operator in child.equals.items()
        ],
        " AND ",
    )


def _texts(replica: Replica, change: Change) -> dict[str, str]:
    """The quoted fields of a change, with their types: JSON strings that hold JSON text, to be read as such."""
    return {name: replica.types[name] for name in change.quoted if replica.types.get(name) in ("json", "jsonb")}


def _value(name: str, texts: Mapping[str, str]) -> Part:
    """A field of the parsed state. Those in `texts` (name -> type) are JSON strings that hold JSON text."""
    if name in texts:
        return part("(k.{} #>> '{{}}')::{}", identifier(name), verbatim(texts[name]))
    return part("k.{}", identifier(name))


def array_of(items: Sequence[bytes]) -> JsonText:
    """A JSON array of JSON texts."""
    return JsonText(b"[%b]" % b",".join(items))
