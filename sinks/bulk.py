"""Many new rows at once by COPY, which costs the target half of what its JSON functions cost.

COPY knows no ON CONFLICT, so it is for rows whose keys are all new: first loads, and tables that mostly grow. Passing
others through a temporary table costs as much as the JSON functions do, and makes DDL of every batch. What was measured
is in tests/benchmarks/README.md.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from typing import Final

from sinks import copy_text
from sinks.compaction import Change
from sinks.postgres import Database, compose, identifier, listed, verbatim
from sinks.replica import Replica
from sinks.statements import array_of, same_key, upsert

COPY_ROWS: Final = 1_000
COPY_BYTES: Final = 1024 * 1024
"""From how many rows, or bytes of them, on COPY is worth its round trips."""
PIECE_BYTES: Final = 128 * 1024
_SAMPLE_KEYS: Final = 16


def upsert_many(database: Database, replica: Replica, changes: Sequence[Change], *, copy_rows: int = COPY_ROWS) -> None:
    """Write whole rows, all of one group; by COPY when they are new and there are `copy_rows` of them, or large."""
    first, document = changes[0], replica.document
    fields = replica.fields(first.rev)
    is_much = len(changes) >= copy_rows or sum([len(change.state or b"") for change in changes]) >= COPY_BYTES
    write = None
    if is_much and not first.quoted:
        write = copy_text.line_writer(document.revisions[first.rev - 1], document.base_types, fields)
    if write is None or not _all_new(database, replica, changes):
        upsert(database, replica, changes)
        return
    unusual: list[Change] = []
    names = listed([identifier(name) for name in fields])
    statement = compose("COPY {} ({}) FROM STDIN", identifier(replica.table), names)
    database.copy(statement, _pieces(write, changes, unusual))
    if unusual:
        upsert(database, replica, unusual)


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
