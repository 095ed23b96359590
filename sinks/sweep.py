"""Snapshot runs: what a replica holds and the source does not is deleted when a run ends.

From a run's begin to its end the keys of all upserts are collected in a side table, in the transactions that apply
them; at the end the rows that were not seen go. Never by key range: collations differ, and rows are inserted meanwhile.
"""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Sequence

from sinks.compaction import Change
from sinks.postgres import Database, JsonText, Part, compose, identifier, listed, part, verbatim
from sinks.replica import Replica, seen_table_name
from transforms import wire
from transforms.event import Mark
from transforms.names import TableName

log = logging.getLogger(__name__)


def apply_mark(database: Database, replica: Replica, mark: Mark) -> None:
    """Begin or end a run, in the transaction in hand. Other marks are ignored."""
    run = str(mark.data.get("run"))
    if mark.name == wire.RUN_BEGIN:
        _begin(database, replica, run)
    elif mark.name == wire.RUN_END and replica.run == run:  # of a run begun before this sink came, nothing is known
        _end(database, replica)


def collect(database: Database, replica: Replica, changes: Sequence[Change]) -> None:
    """Remember that the source holds these rows."""
    if replica.seen_table is None:
        return
    statement = compose(
        "INSERT INTO {seen} SELECT {key} FROM json_populate_recordset(NULL::{seen}, %s::json) AS k"
        " ON CONFLICT DO NOTHING",
        seen=_seen(replica.seen_table),
        key=listed([part("k.{}", identifier(name)) for name in replica.document.key]),
    )
    database.execute(statement, [JsonText(b"[%b]" % b",".join(change.key for change in changes))])


def _begin(database: Database, replica: Replica, run: str) -> None:
    _drop(database, replica)
    table = identifier(replica.table)
    if database.row(compose("SELECT EXISTS (SELECT FROM {})", table))[0]:
        digest = hashlib.sha256(str(replica.table).encode()).hexdigest()[:16]
        replica.seen_table = seen_table_name(replica.table, digest)
        key = replica.document.key
        columns = [part("{} {}", identifier(name), verbatim(replica.types[name])) for name in key]
        database.execute(
            compose(  # logged: after a crash an unlogged table is empty, and the sweep would delete everything
                "CREATE TABLE {} ({}, PRIMARY KEY ({}))",
                _seen(replica.seen_table),
                listed(columns),
                listed([identifier(name) for name in key]),
            )
        )
    replica.run = run
    _store(database, replica)
    log.info("snapshot run of %s begins", replica.label)


def _end(database: Database, replica: Replica) -> None:
    swept = 0
    if replica.seen_table is not None:
        same = [
            part("s.{name} {equals} t.{name}", name=identifier(name), equals=verbatim(operator))
            for name, operator in replica.equals.items()
        ]
        statement = compose(
            "DELETE FROM {} AS t WHERE NOT EXISTS (SELECT FROM {} AS s WHERE {})",
            identifier(replica.table),
            _seen(replica.seen_table),
            listed(same, " AND "),
        )
        swept = database.execute(statement)
    _drop(database, replica)
    replica.run, replica.filled = None, True
    _store(database, replica)
    log.info("snapshot run of %s is complete: %d rows were not at the source any more", replica.label, swept)


def _drop(database: Database, replica: Replica) -> None:
    if replica.seen_table is not None:
        database.execute(compose("DROP TABLE IF EXISTS {}", _seen(replica.seen_table)))
        replica.seen_table = None


def _store(database: Database, replica: Replica) -> None:
    database.execute(
        b"UPDATE cdc.replica SET run = %s, seen_table = %s, filled = %s WHERE table_name = %s",
        [replica.run, replica.seen_table, replica.filled, str(replica.table)],
    )


def _seen(name: str) -> Part:
    return identifier(TableName("cdc", name))
