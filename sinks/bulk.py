"""Many rows at once by COPY, which costs the target a third to a half of what its JSON functions cost.

Rows whose keys are all new go straight into the replica; else they pass through a table that lives for one statement.
It is made anew each time: a temporary table that stays keeps the database's oldest transaction id back, and transaction
poolers would leave it behind in someone else's session. What was measured is in tests/benchmarks/README.md.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from typing import Final

from sinks import copy_text
from sinks.compaction import Change
from sinks.postgres import Database, Part, compose, identifier, listed, part, verbatim
from sinks.replica import Replica
from sinks.statements import array_of, on_conflict, same_key, upsert

COPY_ROWS: Final = 1_000
COPY_BYTES: Final = 1024 * 1024
"""From how many rows, or bytes of them, on COPY is worth its round trips."""
PIECE_BYTES: Final = 128 * 1024
_SAMPLE_KEYS: Final = 16


def upsert_many(database: Database, replica: Replica, changes: Sequence[Change], *, copy_rows: int = COPY_ROWS) -> None:
    """Write whole rows, all of one group; by COPY when there are `copy_rows` of them, or they are large."""
    first = changes[0]
    fields = replica.fields(first.rev)
    write = None
    is_many = len(changes) >= copy_rows or sum([len(change.state or b"") for change in changes]) >= COPY_BYTES
    if is_many and not first.quoted:
        document = replica.document
        write = copy_text.line_writer(document.revisions[first.rev - 1], document.base_types, fields)
    is_new = write is not None and _all_new(database, replica, changes)
    if write is None or not (is_new or _may_stage(database)):
        upsert(database, replica, changes)
        return
    unusual: list[Change] = []
    pieces = _pieces(write, changes, unusual)
    names, table = listed([identifier(name) for name in fields]), identifier(replica.table)
    if is_new:
        database.copy(compose("COPY {} ({}) FROM STDIN", table, names), pieces)
    else:
        _upsert_staged(database, table, names, on_conflict(replica.document.key, fields), pieces)
    if unusual:
        upsert(database, replica, unusual)


def _may_stage(database: Database) -> bool:
    """Every role may make temporary tables, unless that was revoked."""
    return bool(database.row(b"SELECT has_database_privilege(current_database(), 'TEMPORARY')")[0])


def _upsert_staged(
    database: Database, table: Part, names: Part, conflict_clause: Part, pieces: Iterator[bytes]
) -> None:
    stage = part("pg_temp.statecast_stage")
    database.execute(
        compose("CREATE TEMPORARY TABLE statecast_stage ON COMMIT DROP AS SELECT {} FROM {} WITH NO DATA", names, table)
    )
    database.copy(compose("COPY {} FROM STDIN", stage), pieces)
    database.execute(compose("INSERT INTO {} ({}) SELECT * FROM {} {}", table, names, stage, conflict_clause))
    database.execute(compose("DROP TABLE {}", stage))


def _all_new(database: Database, replica: Replica, changes: Sequence[Change]) -> bool:
    """Whether no row has one of these keys. A few are tried first: mostly all rows are new, or none is."""
    keys = [change.key for change in changes]
    sample = keys[:: max(1, len(keys) // _SAMPLE_KEYS)]
    return not _exists(database, replica, sample) and not _exists(database, replica, keys)


def _exists(database: Database, replica: Replica, keys: Sequence[bytes]) -> bool:
    table, [first, *others] = identifier(replica.table), replica.document.key
    if not others and replica.types[first] in ("smallint", "integer", "bigint"):
        start = len(json.dumps(first, ensure_ascii=False).encode()) + 2  # {"id":42}; an array is read much faster
        query = compose(
            "SELECT EXISTS (SELECT FROM {} WHERE {} = ANY (%s::pg_catalog.{}[]))",
            table,
            identifier(first),
            verbatim({"smallint": "int2", "integer": "int4", "bigint": "int8"}[replica.types[first]]),
        )
        return bool(database.row(query, ["{" + b",".join([key[start:-1] for key in keys]).decode() + "}"])[0])
    query = compose(
        "SELECT EXISTS (SELECT FROM json_populate_recordset(NULL::{table}, %s::json) AS k JOIN {table} AS t ON {same})",
        table=table,
        same=same_key(replica),
    )
    return bool(database.row(query, [array_of(keys)])[0])


def _pieces(write: copy_text.LineWriter, changes: Sequence[Change], unusual: list[Change]) -> Iterator[bytes]:
    """The lines of changes, some at a time; those that `write` refuses are added to `unusual`."""
    step = max(1, PIECE_BYTES // (len(changes[0].state or b"") + 1))
    for start in range(0, len(changes), step):
        some = changes[start : start + step]
        lines = [write(change.state or b"") for change in some]
        usual = [line for line in lines if line is not None]
        if len(usual) < len(some):
            unusual += [change for change, line in zip(some, lines, strict=True) if line is None]
        usual.append(b"")
        yield b"\n".join(usual)
