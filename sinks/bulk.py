"""Many new rows at once by COPY, which costs the target half of what its JSON functions cost.

COPY knows no ON CONFLICT, so it is for rows whose keys are new: first loads, and tables that mostly grow. Passing
others through a temporary table costs as much as the JSON functions do, and makes DDL of every batch. What was measured
is in tests/benchmarks/README.md.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Final

from sinks import copy_text
from sinks.compaction import Change
from sinks.postgres import Database, compose, identifier, listed
from sinks.replica import Replica
from sinks.statements import missing_rows, of_keys, upsert
from transforms.schema import SchemaDocument

COPY_ROWS: Final = 1_000
COPY_BYTES: Final = 1024 * 1024
"""From how many rows, or bytes of them, on COPY is worth its round trips."""
PIECE_BYTES: Final = 128 * 1024
_SAMPLE_KEYS: Final = 16


def upsert_many(database: Database, replica: Replica, changes: Sequence[Change], *, copy_rows: int = COPY_ROWS) -> None:
    """Write whole rows, all of one group; the new ones by COPY when there are `copy_rows` of them, or large ones."""
    first, document = changes[0], replica.document
    fields = replica.fields(first.rev)
    write = None
    if _is_much(changes, copy_rows) and not first.quoted:
        write = copy_text.line_writer(document.revisions[first.rev - 1], _types(document), fields)
    if write is None:
        upsert(database, replica, changes)
        return
    new = _new(database, replica, changes)
    if not _is_much(new, copy_rows):
        upsert(database, replica, changes)
        return
    others: list[Change] = []
    if len(new) < len(changes):
        are_new = {change.key for change in new}
        others = [change for change in changes if change.key not in are_new]
    names = listed([identifier(name) for name in fields])
    statement = compose("COPY {} ({}) FROM STDIN", identifier(replica.table), names)
    database.copy(statement, _pieces(write, new, others))
    if others:
        upsert(database, replica, others)


def _types(document: SchemaDocument) -> dict[str, str]:
    """Field -> its base type. An embed is read like json: its text may be without the spaces of jsonb's."""
    columns = (*document.columns, *document.apart)
    return {column.name: "json" if column.embed is not None else column.base_type for column in columns}


def _is_much(changes: Sequence[Change], copy_rows: int) -> bool:
    return len(changes) >= copy_rows or sum([len(change.state or b"") for change in changes]) >= COPY_BYTES


def _new(database: Database, replica: Replica, changes: Sequence[Change]) -> Sequence[Change]:
    """Those whose keys no row has; none where they are few. Some are tried first: mostly nearly all are, or none is."""
    sample = changes[:: max(1, len(changes) // _SAMPLE_KEYS)]
    for some in (sample, changes):
        count = _existing(database, replica, some)
        if count > len(some) // 2:
            return []
    return missing_rows(database, replica, changes) if count else changes


def _existing(database: Database, replica: Replica, changes: Sequence[Change]) -> int:
    """How many of these rows are there already."""
    query, keys = of_keys("SELECT count(*) FROM {table} AS t WHERE {keys}", replica, changes)
    return int(database.row(query, [keys])[0])


def _pieces(write: copy_text.LineWriter, changes: Sequence[Change], unusual: list[Change]) -> Iterator[bytes]:
    """The lines of changes, some at a time; those that `write` refuses are added to `unusual`."""
    step = max(1, PIECE_BYTES // (len(changes[0].state or b"") + 1))
    for start in range(0, len(changes), step):
        some = changes[start : start + step]
        lines, others = write([change.state or b"" for change in some])
        unusual += [some[number] for number in others]
        yield lines
