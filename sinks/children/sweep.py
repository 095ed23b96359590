"""What a snapshot run does to child tables: rows go whose parent is not there when it ends.

Those of rows that the run has seen were replaced with them. A child table that was empty when the run began has rows of
parents alone, which come and go with those: it is left out, so that a first load does not look at all its rows again.
"""

from __future__ import annotations

from sinks.postgres import Database, compose, identifier, listed, part, verbatim
from sinks.replica import Replica


def begin_children(database: Database, replica: Replica) -> None:
    """The replica's run begins."""
    for child in replica.children:
        has_rows = database.row(compose("SELECT EXISTS (SELECT FROM {})", identifier(child.table)))[0]
        database.execute(
            b"UPDATE cdc.replica SET run = %s WHERE table_name = %s",
            [replica.run if has_rows else None, str(child.table)],
        )


def sweep_children(database: Database, replica: Replica) -> None:
    """The replica's run ends, and the rows that the source has no more are gone."""
    for child in replica.children:
        if database.rows(
            b"UPDATE cdc.replica SET run = NULL WHERE table_name = %s AND run = %s RETURNING table_name",
            [str(child.table), replica.run],
        ):
            same = [
                part("p.{} {} t.{}", identifier(name), verbatim(operator), identifier(child.shape.parents[name]))
                for name, operator in child.equals.items()
            ]
            database.execute(
                compose(
                    "DELETE FROM {} AS t WHERE NOT EXISTS (SELECT FROM {} AS p WHERE {})",
                    identifier(child.table),
                    identifier(replica.table),
                    listed(same, " AND "),
                )
            )
