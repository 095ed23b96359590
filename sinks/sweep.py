"""Snapshot runs: what a replica holds and the source does not is deleted when a run ends.

At a run's begin the keys that the table has go to a side table, which leaves it as they are seen: in a snapshot's rows
or in the stream's, in the transactions that apply them. At the end the rows go whose keys are left. Never by key range:
collations differ, and rows are inserted meanwhile. To keep the keys that were seen instead costs a first snapshot half
as much again, for rows of which nothing can be stale.
"""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Sequence

from sinks.children.sweep import begin_children, sweep_children
from sinks.compaction import Change
from sinks.postgres import Database, Part, compose, identifier, listed
from sinks.replica import Replica, unseen_table_name
from sinks.statements import of_keys, same_key
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


def note_seen(database: Database, replica: Replica, changes: Sequence[Change]) -> None:
    """Remember that the source holds these rows."""
    if replica.unseen_table is None:
        return
    statement, keys = of_keys(
        "DELETE FROM {unseen} AS t WHERE {keys}", replica, changes, unseen=_unseen(replica.unseen_table)
    )
    database.execute(statement, [keys])


def _begin(database: Database, replica: Replica, run: str) -> None:
    _drop(database, replica)
    table = identifier(replica.table)
    if database.row(compose("SELECT EXISTS (SELECT FROM {})", table))[0]:
        digest = hashlib.sha256(str(replica.table).encode()).hexdigest()[:16]
        replica.unseen_table = unseen_table_name(replica.table, digest)
        unseen, key = _unseen(replica.unseen_table), listed([identifier(name) for name in replica.document.key])
        database.execute(compose("CREATE TABLE {} AS SELECT {} FROM {}", unseen, key, table))
        database.execute(compose("CREATE INDEX ON {} ({})", unseen, key))
    replica.run = run
    _store(database, replica)
    begin_children(database, replica)
    log.info("snapshot run of %s begins", replica.label)


def _end(database: Database, replica: Replica) -> None:
    swept = 0
    if replica.unseen_table is not None:
        statement = compose(
            "DELETE FROM {} AS t USING {} AS k WHERE {}",
            identifier(replica.table),
            _unseen(replica.unseen_table),
            same_key(replica),
        )
        swept = database.execute(statement)
    sweep_children(database, replica)
    _drop(database, replica)
    replica.run, replica.asked_run, replica.filled = None, None, True
    _store(database, replica)
    deleted = f"; rows deleted that the source has no more: {swept:,}" if swept else ""
    log.info("snapshot run of %s is complete%s", replica.label, deleted)


def _drop(database: Database, replica: Replica) -> None:
    if replica.unseen_table is not None:
        database.execute(compose("DROP TABLE IF EXISTS {}", _unseen(replica.unseen_table)))
        replica.unseen_table = None


def _store(database: Database, replica: Replica) -> None:
    database.execute(
        b"UPDATE cdc.replica SET run = %s, unseen_table = %s, filled = %s, asked_run = %s WHERE table_name = %s",
        [replica.run, replica.unseen_table, replica.filled, replica.asked_run, str(replica.table)],
    )


def _unseen(name: str) -> Part:
    return identifier(TableName("cdc", name))
