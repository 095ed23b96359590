"""Whose a replica table is: rows of `cdc.replica`, written in the transaction that creates or adopts the table."""

from __future__ import annotations

import logging
from collections.abc import Sequence

from sinks.errors import AccessDenied, TableForeign, TableMisfit
from sinks.postgres import Database, compose, identifier, literal, readable, runnable
from sinks.replica import Examination, Misfit, Replica, examine, load
from transforms.names import TableName

log = logging.getLogger(__name__)


def foreign(examination: Examination, pipeline: str, sink: str, *, adopt: bool) -> str | None:
    """Why this sink must leave the table alone, or None."""
    owner, table = examination.owner, examination.table
    if owner is not None and owner != (pipeline, sink, examination.label):
        return f"{table} belongs to event {owner[2]} of sink {owner[1]} of pipeline {owner[0]}"
    if owner is None and examination.has_rows and not adopt:
        return f"{table} has rows and was not made by a sink"
    return None


def claim(
    database: Database,
    examination: Examination,
    pipeline: str,
    sink: str,
    *,
    adopt: bool,
    wants_snapshot: bool,
    is_rebuilt: bool = False,
) -> Replica:
    """Make the table fit where nothing is lost by it, and register it, in the transaction in hand.

    `wants_snapshot`: for a table that is new to this sink, whether its stream's entries alone do not fill it.
    `is_rebuilt`: another table will take its place, so that it may keep types that its event had before.
    Raises TableForeign, TableMisfit, AccessDenied.
    """
    if (reason := foreign(examination, pipeline, sink, adopt=adopt)) is not None:
        remedy = None
        if examination.owner is not None:
            name = literal(str(examination.table))
            forget = readable(compose("DELETE FROM cdc.replica WHERE table_name = {};", name))
            remedy = (
                "Map the event to another table. If that sink is gone for good, set `adopt = true` to take over its "
                f"rows, and run in the replica's database: {forget}"
            )
        raise TableForeign(reason, remedy=remedy)
    table = str(examination.table)
    misfits = [misfit for misfit in examination.misfits if not (is_rebuilt and misfit.column)]
    if misfits:
        raise TableMisfit(
            f"{table} does not fit event {examination.label}: {'; '.join(misfit.what for misfit in misfits)}",
            remedy=_remedy(misfits, sink, examination),
        )
    if examination.statements:  # another sink may be making the same schema
        database.execute(b"SELECT pg_advisory_xact_lock(hashtextextended('statecast schema', 0))")
        examination = examine(database, examination.label, examination.table, examination.document)
    for statement in examination.statements:
        try:
            database.execute(statement)
        except AccessDenied as error:
            remedy = f"Run this as a role that may, then start the worker again:\n{runnable(statement)}"
            raise AccessDenied(f"{table}: {error}", remedy=remedy) from error
    if examination.owner is None:
        database.execute(
            b"INSERT INTO cdc.replica (table_name, pipeline, sink, event, wants_snapshot) VALUES (%s, %s, %s, %s, %s)",
            [table, pipeline, sink, examination.label, wants_snapshot],
        )
    elif not examination.exists:  # dropped behind our back: its rows come again
        forget_rows(database, table)
    elif replaced(database, [table]):
        log.warning("%s is another table than before: its rows come again", table)
        forget_rows(database, table)
    database.execute(
        b"UPDATE cdc.replica SET relation = to_regclass(table_name)::oid"
        b" WHERE table_name = %s AND relation IS DISTINCT FROM to_regclass(table_name)::oid",
        [table],
    )
    return load(database, examination)


def not_registered(database: Database, pipeline: str, sink: str, tables: list[str]) -> list[str]:
    """Those of these tables that are not this sink's (any more): another sink may write to them."""
    rows = database.rows(
        b"SELECT name FROM unnest(%s::text[]) AS name WHERE NOT EXISTS"
        b" (SELECT FROM cdc.replica WHERE table_name = name AND pipeline = %s AND sink = %s) ORDER BY name",
        [tables, pipeline, sink],
    )
    return [table for (table,) in rows]


def replaced(database: Database, tables: list[str]) -> list[str]:
    """Those of these tables whose name another table has now: what it lacks of the rows is not known."""
    rows = database.rows(
        b"SELECT table_name FROM cdc.replica WHERE table_name = ANY(%s) AND relation <> to_regclass(table_name)::oid"
        b" ORDER BY table_name",
        [tables],
    )
    return [table for (table,) in rows]


def _remedy(misfits: Sequence[Misfit], sink: str, examination: Examination) -> str:
    mend = "".join(f"\n{misfit.mend};" for misfit in misfits)
    if examination.owner is not None and all(misfit.column for misfit in misfits):
        return (
            f"Run `cdc-sink rebuild {sink} {examination.document.label}` and start the worker again, which fills a new"
            " table while this one can be read. Or run this in the replica's database, which locks the table while it"
            f" is rewritten:{mend}"
        )
    return f"Run this in the replica's database, then start the worker again:{mend}"


def forget_rows(database: Database, table: str, *, even_if_new: bool = True) -> None:
    """The replica must be filled again, and its sink asks the reader for that.

    `even_if_new`: also where no snapshot has ever filled it.
    """
    database.execute(
        b"UPDATE cdc.replica SET filled = false, wants_snapshot = true, run = NULL"
        b" WHERE table_name = %s AND (filled OR %s)",
        [table, even_if_new],
    )


def forget_left(database: Database, pipeline: str, sink: str, tables: list[str]) -> None:
    """Tables that this sink kept before, and does not among `tables` now, miss what it reads from here on.

    Mapped again, they are filled again.
    """
    database.execute(
        b"UPDATE cdc.replica SET filled = false, wants_snapshot = true, run = NULL"
        b" WHERE pipeline = %s AND sink = %s AND NOT table_name = ANY(%s)"
        b" AND (filled OR NOT wants_snapshot OR run IS NOT NULL)",
        [pipeline, sink, tables],
    )


def want_snapshot(database: Database, table: str) -> None:
    """Its sink is to ask the reader for a snapshot."""
    database.execute(b"UPDATE cdc.replica SET wants_snapshot = true WHERE table_name = %s", [table])


def forget_older_runs(database: Database, pipeline: str, sink: str) -> None:
    """Give up this sink's runs that a worker of a version before began: it kept the keys seen, which do not end them.

    Those of other sinks, whose workers may still be of that version, are left to them.
    """
    if not database.rows(
        b"SELECT FROM pg_attribute WHERE attrelid = 'cdc.replica'::regclass AND attname = 'seen_table'"
        b" AND NOT attisdropped"
    ):
        return
    kept = database.rows(
        b"SELECT seen_table FROM cdc.replica WHERE pipeline = %s AND sink = %s AND seen_table IS NOT NULL",
        [pipeline, sink],
    )
    for (name,) in kept:
        database.execute(compose("DROP TABLE IF EXISTS {}", identifier(TableName("cdc", name))))
    database.execute(
        b"UPDATE cdc.replica SET run = NULL, seen_table = NULL, wants_snapshot = true"
        b" WHERE pipeline = %s AND sink = %s AND seen_table IS NOT NULL",
        [pipeline, sink],
    )


def snapshot_requested(database: Database, table: str, run: str) -> None:
    """The reader has been asked for this run."""
    database.execute(
        b"UPDATE cdc.replica SET wants_snapshot = false, asked_run = %s WHERE table_name = %s", [run, table]
    )
